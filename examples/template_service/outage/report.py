# SPDX-License-Identifier: MIT
"""The table of all runs, and the page docs/outage.md around it."""

import os
import platform
import shutil
import subprocess

import measure

HURT_FACTOR = 10  # what counts as an outage: errors, or p99 this many times the healthy one
ALLOWED_FACTOR = 3


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


def allowed_ms(run, timeline):
    return ALLOWED_FACTOR * p99(run, timeline, "healthy") + mean_query_ms(run, timeline, "healthy")


def verdict(run, timeline):
    during = requests_in(run, timeline, "cut")
    failed = sum(status != 200 for _, status, _ in during)
    healthy, cut = p99(run, timeline, "healthy"), p99(run, timeline, "cut")
    if run.coalesce == "off":
        return "an outage" if failed or cut > HURT_FACTOR * healthy else "no outage"
    within = cut <= allowed_ms(run, timeline)
    return f"p99 {'within' if within else 'beyond'} 3 × healthy + one query"


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
        "requests during the cut": f"{len(during):,}",
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
            f"{rate_in(run, timeline, 'cut', 'singleflight_led_total'):.0f}, "
            f"{rate_in(run, timeline, 'cut', 'singleflight_joined_total'):.0f}",
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
    lines = ["| | " + " | ".join(f"{run.scenario}, coalescing {run.coalesce}" for run in runs) + " |",
             "|---|" + "---:|" * len(runs)]
    for name in columns[0]:
        lines.append(f"| {name} | " + " | ".join(figures[name] for figures in columns) + " |")
    return "\n".join(lines) + "\n"


PAGE = """# The outage

*This page is written by `./dev outage --docs docs`, from a run on {date}.*

A service in {services} processes answers `GET /template-details`. Redis is its cache, where entries live
about 30 s; MariaDB is its store. Then the network to Redis fails. Every request becomes a miss, every
miss a query, and the store, which never had to carry the load alone, takes everything down with it.
Below this happens on real servers, once without coalescing and once with it. The difference between
the two is one flag, `--coalesce`, and these lines of
[template_reader.hpp](../examples/template_service/template_reader.hpp):

```cpp
{heart}
```

## Connections are refused

Redis is killed, and started again, empty, after {cut} s. The cut is shaded.

![Answers, latency and store load over time, without and with coalescing](outage/refused.svg)

## Connections hang

Redis is stopped (`SIGSTOP`): the kernel still accepts connections, and nothing answers. After {cut} s it
goes on.

![Answers, latency and store load over time, without and with coalescing](outage/hanging.svg)

## Figures

{table}
* Latency counts from the moment at which a request was due, not from when it could be sent.
* Queries, and how many are running, are what MariaDB counts (`SHOW GLOBAL STATUS`, each second). That
  no two ran at once for the same key and process is seen in its performance schema, which has the
  start and the end of every query of the run, {queries:,} in all four.
* The verdict compares p99 during the cut. Without coalescing: with {hurt} times the healthy one, unless
  requests failed anyway. With it: with 3 times the healthy one plus the mean time of one query.

## What it means

* Without coalescing every request is a query: {due:.0f} arrived in a second of the cut, and the store
  answered {answered:.0f}. The others queue for its {connections} connections, the longer the queue the longer the
  wait, and those that have waited 2 s are answered 503. More connections would move the queue into
  the database, where it is dearer.
* With coalescing a key costs each process one query at a time, however many ask for it. So the load on
  the store is bounded by how many *different* templates are asked for at once, not by how many
  requests come; and where it gets slower, more requests share each query.
* Coalescing alone does not survive a cache that hangs. The service gives Redis 50 ms, and after the
  first failure leaves it alone until a thread of its own finds it back
  ([hiredis_client.hpp](../include/singleflight/hiredis_client.hpp)). Else every request would
  wait those 50 ms, and the threads with them.
* It is not the whole answer: the store must carry one query for each key that is wanted at once. Where
  nearly every request asks for a template of its own, nothing is identical and nothing is saved.

## How it was run

`./dev outage` on {machine}. {services} service processes, {connections_each} store connections each;
{templates:,} templates of 1,200 fragments; every template is updated every {update} s. For {warm} s the
cache warms, which is not shown.

Everything runs on those processors, so the load is scaled to them. First the store's capacity is
measured, here {capacity:.0f} queries/s with all connections busy and the same ids, by a load so heavy that it
takes much of the processors itself; then requests arrive at {overload:.1f} times that, {rate}/s, at random
moments, whatever the answers do. (The clients are a small program on
libcurl, [open_loop.cpp](../examples/template_service/outage/open_loop.cpp): of the load generators in
Debian, none combines a fixed rate, ids from a distribution, and a latency that counts from when the
request was due.) Ids follow Zipf's law with the exponent {skew}, which is steeper than most real loads:
on two processors three queries at once are already slow, so the figures need keys that are as hot as
those of a load a hundred times as high. And the clients send an id always to the same process, as a load
balancer does that hashes. When they take the processes in turn, each hot key costs three queries at a
time instead of one. MariaDB runs at a lower priority (`nice`), since on a machine of its own it
would take no time from the services.

The figures of each second are in `build/outage/` after a run. `./dev outage --quick` takes about a minute.
It fails only for what does not depend on the machine's speed: a request that failed with coalescing,
more than one query at a time for a key and process, a process left behind.
"""


def machine():
    with open("/proc/cpuinfo") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    version = subprocess.run(["mariadb", "--version"], capture_output=True, text=True, check=True)
    return (f"{os.cpu_count()} processors ({model or platform.machine()}), {platform.system()} "
            f"{platform.release()}, {version.stdout.split(',')[0].split()[-1]}")


def heart():
    """The lines of the service that this is about, as they are."""
    path = os.path.join(os.path.dirname(__file__), "..", "template_reader.hpp")
    with open(path) as source:
        lines = source.read().splitlines()
    begin = next(n for n, line in enumerate(lines) if "details_json get(" in line)
    end = next(n for n, line in enumerate(lines) if n > begin and line == "  }")
    return "\n".join(line[2:] for line in lines[begin:end + 1])


def publish(stage, runs, results, docs):
    from outage import (CONNECTIONS, SCENARIOS, SERVICES, SKEW, TEMPLATES, UPDATE_EVERY)
    import datetime
    pictures = os.path.join(docs, "outage")
    os.makedirs(pictures, exist_ok=True)
    for scenario in SCENARIOS:
        shutil.copy(os.path.join(results, scenario + ".svg"), pictures)
    off = next(run for run in runs if run.coalesce == "off")
    page = PAGE.format(
        date=datetime.date.today().isoformat(), services=SERVICES, cut=stage.timeline.cut,
        heart=heart(), table=table(stage, runs), hurt=HURT_FACTOR,
        queries=sum(len(spans) for run in runs for spans in run.executions.values()),
        overload=stage.rate / stage.capacity, connections=SERVICES * CONNECTIONS,
        connections_each=CONNECTIONS, machine=machine(), templates=TEMPLATES, update=UPDATE_EVERY,
        warm=stage.timeline.warm, capacity=stage.capacity, rate=stage.rate, skew=SKEW,
        due=len(requests_in(off, stage.timeline, "cut")) / stage.timeline.cut,
        answered=rate_in(off, stage.timeline, "cut", "Com_select"))
    with open(os.path.join(docs, "outage.md"), "w") as out:
        out.write(page)
