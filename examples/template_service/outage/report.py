# SPDX-License-Identifier: MIT
"""The figures of all runs, and how they come into docs/outage.md.

Run by itself, puts the service's code into that page, which needs no run.
"""

import datetime
import os
import pathlib
import platform
import shutil
import subprocess
import sys

import measure

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(ROOT / "docs"))
import markers  # noqa: E402

ACTS = {"off": "coalescing off", "on": "coalescing on", "fleet": "with a fleet"}
LIMIT_MS = 1000  # beyond it, p99 is an outage; and so is a request that failed


def phase(run, timeline, name):
    begin = {"healthy": timeline.warm, "cut": timeline.cut_at, "back": timeline.back_at}[name]
    return begin, begin + getattr(timeline, name)


def requests_in(run, timeline, name):
    begin, end = phase(run, timeline, name)
    return [request for request in run.requests if begin <= request[0] < end]


def p99(run, timeline, name):
    return measure.percentile([latency for _, _, latency in requests_in(run, timeline, name)], 0.99)


def mean_query_ms(run, timeline, name):
    """What a query of the store takes, by the services' own clocks."""
    begin, end = phase(run, timeline, name)
    before, after = run.samples[begin][1], run.samples[end][1]
    queries = after["template_store_queries_total"] - before["template_store_queries_total"]
    seconds = (after["template_store_query_seconds_total"] -
               before["template_store_query_seconds_total"])
    return 1000 * seconds / queries if queries else 0.0


def beside_another(run):
    """Queries that began while the same process had one running for the same key."""
    count = 0
    for spans in run.executions.values():
        until = 0
        for start, end in sorted(spans):
            count += start < until
            until = max(until, end)
    return count


def verdict(run, timeline):
    during = requests_in(run, timeline, "cut")
    failed = sum(status != 200 for _, status, _ in during)
    slow = p99(run, timeline, "cut") > LIMIT_MS
    return (f"{'an' if failed or slow else 'no'} outage: p99 {'beyond' if slow else 'within'} "
            f"{LIMIT_MS / 1000:.0f} s, {failed:,} failed")


def herds_in(run, timeline, name):
    """Queries of each herd for one of the popular templates: `cold`, until each was answered once, or in
    a phase."""
    from outage import POPULAR
    sizes = []
    for (template, _), spans in measure.all_spans(run.executions).items():
        if template > POPULAR:
            continue
        herds = measure.herds(spans)
        if name == "cold":
            sizes.append(herds[0][1])
        else:
            begin, end = phase(run, timeline, name)
            sizes += [size for start, size in herds if begin <= start < end]
    return f"{sum(sizes) / len(sizes):.2f}, {max(sizes)}" if sizes else "–"


def milliseconds(value):
    return f"{value:,.0f} ms" if value >= 9.95 else f"{value:.1f} ms"


def column(run, timeline):
    """The figures of a run, each with its name."""
    during = requests_in(run, timeline, "cut")
    failed_then = sum(status != 200 for _, status, _ in during)
    failed = sum(status != 200 for _, status, _ in run.requests)
    begin, end = phase(run, timeline, "cut")
    executions = run.executions.values()
    return {
        "cold start: queries for a popular template, mean, most": herds_in(run, timeline, "cold"),
        "expiry: the same": herds_in(run, timeline, "healthy"),
        "requests during the cut": f"{len(during):,}",
        "… a second": f"{len(during) / timeline.cut:.0f}",
        "… answered 503": f"{sum(status == 503 for _, status, _ in during):,}",
        "… not answered": f"{sum(status not in (200, 503) for _, status, _ in during):,}",
        "failed before and after": f"{failed - failed_then:,}",
        "p99 healthy": milliseconds(p99(run, timeline, "healthy")),
        "p50 during the cut": milliseconds(measure.percentile([r[2] for r in during], 0.5)),
        "p99 during the cut": milliseconds(p99(run, timeline, "cut")),
        "one query, healthy": milliseconds(mean_query_ms(run, timeline, "healthy")),
        "store queries/s, healthy": f"{rate_in(run, timeline, 'healthy', 'Com_select'):.0f}",
        "store queries/s during the cut": f"{rate_in(run, timeline, 'cut', 'Com_select'):.0f}",
        "calls begun/s, joined/s":
            f"{rate_in(run, timeline, 'cut', measure.LED):.0f}, "
            f"{rate_in(run, timeline, 'cut', measure.JOINED):.0f}",
        "queries running at once, at most":
            f"{max(row['store_running'] for row in run.rows[begin:end])}",
        "for one key and process, at most": f"{max(map(measure.most_at_once, executions))}",
        "queries beside one for the same key and process":
            f"{beside_another(run):,} of {sum(map(len, executions)):,}",
        "verdict": verdict(run, timeline),
    }


def rate_in(run, timeline, name, counter):
    begin, end = phase(run, timeline, name)
    (then, before), (now, after) = run.samples[begin], run.samples[end]
    return (after[counter] - before[counter]) / (now - then)


def table(stage, runs):
    columns = [column(run, stage.timeline) for run in runs]
    lines = ["| | " + " | ".join(f"{run.scenario}, {ACTS[run.act]}" for run in runs) + " |",
             "|---|" + "---:|" * len(runs)]
    for name in columns[0]:
        lines.append(f"| {name} | " + " | ".join(figures[name] for figures in columns) + " |")
    return "\n".join(lines) + "\n"


def herds_table(loads):
    counts = sorted({count for count, _ in loads})
    lines = ["| queries for a cold template | " + " | ".join(ACTS.values()) + " |",
             "|---|" + "---:|" * len(ACTS)]
    for count in counts:
        lines.append(f"| {count} processes | " + " | ".join(f"{loads[count, act]:.2f}" for act in ACTS) + " |")
    return "\n".join(lines) + "\n"


def machine():
    with open("/proc/cpuinfo") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    version = subprocess.run(["mariadb", "--version"], capture_output=True, text=True, check=True)
    return (f"{os.cpu_count()} processors ({model or platform.machine()}), {platform.system()} "
            f"{platform.release()}, MariaDB {version.stdout.split(',')[0].split()[-1].removesuffix('-MariaDB')}")


def setup(stage):
    """What the runs have in common."""
    from outage import CONNECTIONS, SERVICES, SKEW, TEMPLATES, UPDATE_EVERY
    timeline = stage.timeline
    rows = {
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "services": f"{SERVICES} processes, {CONNECTIONS} connections to the store each",
        "templates": f"{TEMPLATES:,}, each updated every {UPDATE_EVERY} s",
        "phases": f"{timeline.warm} s to warm the cache, which are not shown, {timeline.healthy} s healthy, "
                  f"{timeline.cut} s cut, {timeline.back} s after it",
        "capacity of the store": f"{stage.capacity:.0f} queries/s",
        "requests": f"{stage.rate}/s, {stage.rate / stage.capacity:.1f} times that",
        "ids": f"Zipf's law with the exponent {SKEW}",
    }
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def code():
    """The lines of the service that this is about, as they are."""
    lines = (ROOT / "examples/template_service/template_reader.hpp").read_text().splitlines()
    begin = next(n for n, line in enumerate(lines) if "details_json get(" in line)
    end = next(n for n, line in enumerate(lines) if n > begin and line == "  }")
    return "\n".join(["```cpp", *(line[2:] for line in lines[begin:end + 1]), "```"])


def publish(stage, runs, herds, results, docs):
    from outage import SCENARIOS
    pictures = os.path.join(docs, "outage")
    os.makedirs(pictures, exist_ok=True)
    for scenario in SCENARIOS:
        shutil.copy(os.path.join(results, scenario + ".svg"), pictures)
    markers.fill(pathlib.Path(docs) / "outage.md", "outage",
                 {"code": code(), "herds": herds_table(herds), "figures": table(stage, runs), "setup": setup(stage)})


if __name__ == "__main__":
    markers.fill(ROOT / "docs/outage.md", "outage", {"code": code()})
