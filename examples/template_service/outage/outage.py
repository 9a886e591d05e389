#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The outage, on real servers: three services with Redis before MariaDB, a load that does not wait for
answers, and Redis cut off; without coalescing, with it, and with a fleet."""

import argparse
import contextlib
import csv
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import measure
import plots
import processes
import report
from processes import Failure

SERVICES = 3
CONNECTIONS = 8  # of each service, to the store
TEMPLATES = 10_000
SKEW = 1.3
POPULAR = 100  # templates whose queries are looked at one by one
UPDATE_EVERY = 30  # seconds, each template
STORE_NICENESS = 10
SERVICE_FLAGS = [
    "--threads=256", f"--store-connections={CONNECTIONS}",
    # Far beyond what any machine needs: a hung store is not what is looked at here.
    "--store-timeout-s=60", "--deadline-ms=60000", "--max-age-ms=60000", "--drain-ms=1"]
CLIENT_TIMEOUT_MS = 60_000


@dataclasses.dataclass
class Timeline:
    """In seconds, one after the other."""
    warm: int
    healthy: int
    cut: int
    back: int
    patience: int  # of a request that waits for a connection to the store

    @property
    def cut_at(self):
        return self.warm + self.healthy

    @property
    def back_at(self):
        return self.cut_at + self.cut

    @property
    def length(self):
        return self.back_at + self.back


# Entries live for 27 to 33 s, so those of the cold start expire in the healthy phase.
FULL = Timeline(warm=20, healthy=20, cut=15, back=15, patience=2)
# Nobody loses patience: a machine that is busy with other things must not fail it.
QUICK = Timeline(warm=3, healthy=3, cut=4, back=2, patience=60)

# For each act: what the services are told.
ACTS = {"off": ("--coalesce=off", "--fleet=off"), "on": ("--coalesce=on", "--fleet=off"),
        "fleet": ("--coalesce=on", "--fleet=on")}

# For each scenario: how Redis is cut off, and how it comes back.
SCENARIOS = {"refused": ("kill", "start"), "hanging": ("stop", "go_on")}


# Cold templates, one after the other, each asked for by all processes at once.
HERD = 4  # requests to each process
HERDS_A_SECOND = 8


@dataclasses.dataclass
class Herds:
    templates: int
    processes: tuple  # one experiment for each


FULL_HERDS = Herds(templates=40, processes=(2, 5, 10))
QUICK_HERDS = Herds(templates=8, processes=(2,))


@dataclasses.dataclass
class Run:
    scenario: str
    act: str
    requests: list  # (due, status, latency in ms)
    rows: list      # one a second
    samples: list   # (time, counters) at the start and at the end of each second
    executions: dict  # (id, locale, process): (start, end) of each query


class Stage:
    """The store, the programs and the load, which all runs share."""

    def __init__(self, fleet, programs, timeline, overload):
        self.fleet = fleet
        self.program = os.path.join(programs, "template_service")
        self.load_program = os.path.join(programs, "open_loop")
        self.timeline = timeline
        self.mariadb = processes.MariaDb(fleet, STORE_NICENESS)
        processes.fill_store(fleet, self.program, self.mariadb, TEMPLATES)
        self.history = measure.QueryHistory(self.mariadb)
        self.capacity = self.measure_capacity()
        self.rate = round(overload * self.capacity)

    @contextlib.contextmanager
    def services(self, redis_port, act, count=SERVICES):
        flags = [*ACTS[act], *processes.flags_for(redis_port, self.mariadb.port), *SERVICE_FLAGS,
                 f"--store-patience-ms={1000 * self.timeline.patience}"]
        started = [processes.Service(self.fleet, f"service-{n}", self.program, flags)
                   for n in range(1, count + 1)]
        yield started
        for service in started:
            service.end()

    def start_load(self, services, start, length, *flags, **options):
        servers = [f"--server={service.url}" for service in services]
        return self.fleet.start("load", [
            self.load_program, *servers, f"--start={start:.6f}", f"--length={length}",
            f"--templates={TEMPLATES}", f"--timeout-ms={CLIENT_TIMEOUT_MS}", *flags], **options)

    def measure_capacity(self):
        """How many queries a second the store answers when all connections are busy."""
        settle, length = 1, 4
        with self.services(processes.free_port(), "off") as services:
            start = time.monotonic() + 0.1
            load = self.start_load(services, start, settle + length, "--rate=2000", f"--skew={SKEW}",
                                   f"--connections={CONNECTIONS}")
            sampler = measure.Sampler(self.mariadb, services)
            sleep_until(start + settle)
            before, then = sampler.read(), time.monotonic()
            sleep_until(start + settle + length)
            after, now = sampler.read(), time.monotonic()
            self.fleet.end(load)
        return (after["Com_select"] - before["Com_select"]) / (now - then)

    def queries_of_herds(self, act, count, templates):
        """How many queries `count` processes make for a cold template, on average."""
        redis = processes.Redis(self.fleet)
        before = self.count_selects()
        with self.services(redis.port, act, count) as services:
            load = self.start_load(services, time.monotonic() + 0.1, templates / HERDS_A_SECOND,
                                   f"--rate={HERDS_A_SECOND}", f"--herd={HERD}", stdout=subprocess.PIPE)
            answers = list(measure.read_requests(load.stdout.read().decode().splitlines()))
            self.fleet.end(load)
        redis.end()
        failed = sum(status != 200 for _, status, _ in answers)
        if failed:
            raise Failure(f"{failed} of {len(answers)} requests of herds failed, act {act}")
        return (self.count_selects() - before) * HERD * count / len(answers)

    def play(self, scenario, act):
        redis = processes.Redis(self.fleet)
        self.history.clear()
        selects_before = self.count_selects()
        with self.services(redis.port, act) as services:
            path = os.path.join(self.fleet.directory, "requests.csv")
            start = time.monotonic() + 0.5
            with open(path, "w") as out:
                load = self.start_load(services, start, self.timeline.length, f"--rate={self.rate}",
                                       f"--skew={SKEW}", stdout=out)
            samples = self.observe(scenario, redis, services, start)
            load.wait(CLIENT_TIMEOUT_MS / 1000 + 10)
        redis.end()
        with open(path) as lines:
            requests = list(measure.read_requests(lines))
        return Run(scenario, act, requests,
                   measure.by_second(requests, samples, self.timeline.length), samples,
                   self.read_history(selects_before))

    def observe(self, scenario, redis, services, start):
        """Samples the counters each second, updates templates, and cuts Redis off for a while."""
        cut, back = SCENARIOS[scenario]
        sampler = measure.Sampler(self.mariadb, services)
        updater = self.mariadb.open_client()
        samples = []
        for second in range(self.timeline.length + 1):
            sleep_until(start + second)
            if second == self.timeline.cut_at:
                getattr(redis, cut)()
            if second == self.timeline.back_at:
                getattr(redis, back)()
            samples.append((time.monotonic(), sampler.read()))
            updater.stdin.write("UPDATE templates.template SET version = version + 1 "
                                f"WHERE id % {UPDATE_EVERY} = {second % UPDATE_EVERY};\n")
        self.fleet.end(updater)
        return samples

    def count_selects(self):
        return int(self.mariadb.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")[0][1])

    def read_history(self, selects_before):
        """All queries of the run; if MariaDB has counted others, what it recorded proves nothing."""
        counted = self.count_selects() - selects_before
        executions = self.history.read()
        recorded = sum(map(len, executions.values()))
        if recorded != counted:
            raise Failure(f"MariaDB has counted {counted} queries and recorded {recorded}")
        return executions


def sleep_until(when):
    time.sleep(max(0.0, when - time.monotonic()))


def judge(runs):
    """Checks that hold on any machine, however slow."""
    for run in runs:
        if run.act == "off":
            continue
        for key, spans in run.executions.items():
            most = measure.most_at_once(spans)
            if most > 1:
                raise Failure("with coalescing, MariaDB executed {} queries at once for id {}, locale "
                              "{}, process {}".format(most, *key))
        failed = sum(status != 200 for _, status, _ in run.requests)
        if failed:
            raise Failure(f"with coalescing, {failed} of {len(run.requests)} requests failed, "
                          f"connections {run.scenario}")


def write_csv(path, rows):
    with open(path, "w", newline="") as out:
        writer = csv.DictWriter(out, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_results(stage, runs, herds, results, docs):
    for run in runs:
        write_csv(os.path.join(results, f"{run.scenario}-{run.act}.csv"), run.rows)
    for scenario in SCENARIOS:
        plots.draw(results, scenario, stage.timeline)
    table = report.herds_table(herds) + "\n" + report.table(stage, runs)
    with open(os.path.join(results, "outage.md"), "w") as out:
        out.write(table)
    print(table)
    if docs:
        report.publish(stage, runs, herds, results, docs)


def experiment(options, directory):
    timeline = QUICK if options.quick else FULL
    herds = QUICK_HERDS if options.quick else FULL_HERDS
    runs = []
    loads = {}  # of a cold template, for (processes, act)
    with processes.Fleet(directory) as fleet:
        print("outage: starting MariaDB, filling it, measuring what it can do", flush=True)
        stage = Stage(fleet, options.programs, timeline, options.overload)
        print(f"outage: the store answers {stage.capacity:.0f} queries/s; requests will arrive at "
              f"{stage.rate}/s", flush=True)
        for count in herds.processes:
            for act in ACTS:
                loads[count, act] = stage.queries_of_herds(act, count, herds.templates)
                print(f"outage: cold templates, {count} processes, {report.ACTS[act]}: "
                      f"{loads[count, act]:.2f} queries each", flush=True)
        for scenario in SCENARIOS:
            for act in ACTS:
                print(f"outage: connections {scenario}, {report.ACTS[act]}: {timeline.length} s", flush=True)
                runs.append(stage.play(scenario, act))
    write_results(stage, runs, loads, options.results, options.docs)
    judge(runs)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev outage", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two minutes instead of ten; the figures "
                        "mean little, the checks all they do")
    parser.add_argument("--overload", type=float, default=1.5, metavar="FACTOR",
                        help="requests for each query that the store can answer (default: 1.5)")
    parser.add_argument("--docs", type=os.path.abspath, metavar="DIRECTORY",
                        help="write the figures into outage.md there, and the pictures beside it")
    parser.add_argument("--programs", type=os.path.abspath, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--results", type=os.path.abspath, required=True, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def stop(*_):
    raise KeyboardInterrupt


def keep_logs(directory, results):
    logs = os.path.join(results, "logs")
    os.makedirs(logs, exist_ok=True)
    for name in os.listdir(directory):
        if name.endswith(".log"):
            shutil.copy(os.path.join(directory, name), logs)


def main():
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, stop)
    shutil.rmtree(options.results, ignore_errors=True)
    os.makedirs(options.results)
    directory = tempfile.mkdtemp(prefix="singleflight-outage-")  # short: it has a socket in it
    try:
        experiment(options, directory)
        return 0
    except Failure as failure:
        print(f"outage: {failure} (logs: {options.results}/logs)", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("outage: interrupted; everything it started has ended", file=sys.stderr)
        return 130
    finally:
        keep_logs(directory, options.results)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
