#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes tables (Markdown) and plots (SVG, by gnuplot) of what run.py has measured.

Every figure is a median over the rounds, with half the distance of the quartiles as its spread.
Ratios are taken within each round, and then their median.
"""

import collections
import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "docs"))
import markers  # noqa: E402

NAMES = {
    "none": "no coalescing",
    "global_mutex": "one mutex around cache and loader",
    "mutex_per_key": "a mutex per key, a second look",
    "textbook": "textbook",
    "textbook_mended": "textbook, mended",
    "tbb_future": "oneTBB map of futures",
    "tbb_future_mended": "oneTBB map of futures, mended",
    "tbb_accessor": "oneTBB accessor held while loading",
    "call_once": "`std::call_once` per key",
    "go": "Go `x/sync/singleflight`",
    "singleflight": "**singleflight**",
    "threads": "**singleflight**, threads",
    "coroutines_inline": "**singleflight**, coroutines resumed inline",
    "coroutines_executor": "**singleflight**, coroutines on 2 threads",
    "bare_future": "bare `shared_future`",
    "bare_future_deadline": "bare `shared_future`, `wait_until`",
    "singleflight_deadline": "**singleflight**, each with a deadline",
    "singleflight_stop_token": "**singleflight**, each with a stop token",
    "floor": "two empty lock/unlock pairs",
    "system_call": "one system call (`futex`, nobody to wake)",
}
LOADERS = {
    "none": "nothing",
    "10us_busy": "10 µs busy",
    "1ms_busy": "1 ms busy",
    "1ms_asleep": "1 ms asleep",
    "10ms_asleep": "10 ms asleep",
}
UNITS = {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9}


class Figure(list):
    """What the rounds measured of one thing."""

    @property
    def median(self):
        return statistics.median(self)

    @property
    def quartiles(self):
        if len(self) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self, n=4, method="inclusive")
        return low, high

    @property
    def spread(self):
        low, high = self.quartiles
        return (high - low) / 2 / abs(self.median) if self.median else 0

    def over(self, other):
        return Figure(a / b for a, b in zip(self, other) if b)

    def minus(self, other):
        return Figure(a - b for a, b in zip(self, other))


class Results:
    """All rows of all rounds: `results[name]` is what is named `name`, by counter."""

    def __init__(self, directory):
        self.context = json.loads((directory / "machine.json").read_text())
        self.rows = collections.defaultdict(lambda: collections.defaultdict(Figure))
        for file in sorted((directory / "runs").glob("*.json")):
            run = json.loads(file.read_text())
            which = "go" if file.name.startswith("go_") else "cpp"
            self.context[which] = f"{run['context']['compiler']}, {run['context']['flags']}"
            for row in run["benchmarks"]:
                self.add(row)

    def add(self, row):
        mine = self.rows[canonical(row["name"])]
        unit = UNITS[row.get("time_unit", "ns")]
        for key, value in row.items():
            if key in ("real_time", "cpu_time"):
                mine[key].append(value * unit)
            elif isinstance(value, (int, float)):
                mine[key].append(value)

    def get(self, name, counter):
        return self.rows.get(name, {}).get(counter)

    def last_parts(self, prefix):
        """The alternatives that have rows under a prefix, in the order of NAMES."""
        found = {name[len(prefix):] for name in self.rows if name.startswith(prefix)}
        self.all_named(found, NAMES, "NAMES", prefix)
        return [name for name in NAMES if name in found]

    @staticmethod
    def all_named(found, names, table, prefix):
        """A row without a name would be left out silently."""
        if unnamed := sorted(found - names.keys()):
            sys.exit(f"report: {table} in bench/report.py has no name for {', '.join(unnamed)}, measured as {prefix}...")


def canonical(name):
    """A row's name with its alternative last, without what Google Benchmark adds."""
    parts = [part for part in name.split("/")
             if part not in ("real_time", "manual_time") and not part.startswith("iterations:")]
    threads = [part for part in parts if part.startswith("threads:")]
    named = [part for part in parts if part not in threads]
    return "/".join(named[:-1] + threads + named[-1:])


def number(value):
    """Three digits of a number, as people write it."""
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        digits = max(0, len(str(int(abs(value)))) - 3)
        return f"{int(round(value, -digits)):,}"
    return f"{value:.3g}"


def cell(figure, form=number, spread=True):
    if not figure:
        return ""
    text = form(figure.median)
    return f"{text} ±{100 * figure.spread:.0f} %" if spread and figure.spread else text


def percent(value):
    return f"{value:.1f} %" if 0.05 <= value < 99.95 else f"{value:.0f} %" if value in (0, 100) else f"{value:.2f} %"


def milliseconds(value):
    return f"{number(value / 1000)} ms" if value >= 1000 else f"{number(value)} µs"


def table(head, rows):
    rows = [row for row in rows if any(row[1:])]
    if not rows:
        return ""
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


# --- The sections: one function each, by the name of its marker in docs/benchmarks.md --------------


def section_machine(results):
    about = results.context
    rows = [["processor", about["processor"]], ["system", about["system"]], ["C++", about.get("cpp", "")],
            ["Go", about.get("go", "")],
            ["rounds", f"{about['rounds']}, of {number(about['seconds'])} s a row"],
            ["load average before", number(about["load"])],
            ["date", about["date"]], ["command", f"`{about['command']}`"]]
    return table(["", ""], rows).replace("--:", "---")


def section_reached(results):
    def ratio(over, under, counter):
        over, under = results.get(over, counter), results.get(under, counter)
        return over.over(under) if over and under else None

    def row(what, target, figure, good):
        if not figure:
            return [what, "", "", ""]
        return [what, target, cell(figure), "yes" if good(figure.median) else "**no**"]

    def worst(counter, pattern, choose):
        values = [value for name in results.rows if re.fullmatch(pattern, name)
                  for value in results.get(name, counter) or []]
        return Figure([choose(values)]) if values else None

    hot = "dedup/one_key/callers:64/loader:{}/{}"

    def waiter(which, counter, without):
        """Of a waiter, what it takes beyond another counter of its row."""
        name = f"async_counts/waiter/waiters:100000/coroutines_{which}"
        all_of_it, less = results.get(name, counter), results.get(name, without)
        return Figure(a - b for a, b in zip(all_of_it, less)) if all_of_it and less else None

    def wake(followers):
        return ratio(f"wake/followers:{followers}/singleflight", f"wake/followers:{followers}/bare_future", "last_us")

    ours = "cost/key:{}/singleflight"
    threads = "cost_threads/key:string/threads:8/{}"
    one = 64
    hammered = f"dedup/one_key/callers:{one}/loader:1ms_asleep/"
    at_least, at_most = (lambda n: lambda value: value >= n), (lambda n: lambda value: value <= n)
    return table(["", "to reach", "measured", "reached"], [
        row("unshared call, integer key: times faster than textbook", "≥ 10",
            ratio("cost/key:integer/textbook", ours.format("integer"), "cpu_time"), at_least(10)),
        row("unshared call, 24-character string: times faster than textbook", "≥ 6",
            ratio("cost/key:string/textbook", ours.format("string"), "cpu_time"), at_least(6)),
        row("the same: times faster than Go", "≥ 3",
            ratio("cost/key:string/go", ours.format("string"), "cpu_time"), at_least(3)),
        row("unshared call, integer key: times the floor", "≤ 3",
            ratio(ours.format("integer"), "cost/key:none/floor", "cpu_time"), at_most(3)),
        row("8 threads, a string key each: times textbook's calls a second", "≥ 10",
            ratio(threads.format("singleflight"), threads.format("textbook"), "calls/s"), at_least(10)),
        row("the same: times Go's", "≥ 3",
            ratio(threads.format("singleflight"), threads.format("go"), "calls/s"), at_least(3)),
        row("allocations of a call, integer key", "0",
            results.get("counts/key:integer/singleflight", "allocations"), at_most(0)),
        row("allocations of a call, string key", "0",
            results.get("counts/key:string/singleflight", "allocations"), at_most(0)),
        row("executions of a burst whose callers have all joined", "1",
            worst("executions", r"wake/.*/singleflight.*", max), at_most(1)),
        row("stale answers, the worst of all rows, in %", "0",
            worst("stale%", r"(dedup|saving)/.*/singleflight", max), at_most(0)),
        row(f"{one} callers, 1 ms asleep: fresh answers a second, times the mended textbook's", "≥ 1",
            ratio(hammered + "singleflight", hammered + "textbook_mended", "fresh/s"), at_least(0.995)),
        row("the last of 64 followers, times a bare `shared_future`", "≤ 1.1", wake(64), at_most(1.1)),
        row("the last of 256 followers, times a bare `shared_future`", "≤ 1.1", wake(256), at_most(1.1)),
        row("copies of a 1 MB value that 9 callers share", "0",
            results.get("growth/shared/bytes:1000000/singleflight", "copies"), at_most(0)),
        *(row(f"a bulk of 100 {keys} keys, a loader that does nothing: times faster than 100 `do_call`s", "≥ 1",
              ratio(f"bulk/empty/key:{keys}/keys:100/do_call", f"bulk/empty/key:{keys}/keys:100/do_many", "cpu_time"),
              at_least(1)) for keys in ("integer", "string")),
        *(row(f"the last of {n:,} coroutines resumed inline: times earlier than of as many goroutines", "≥ 10",
              ratio(f"herd/waiters:{n}/go", f"herd/waiters:{n}/coroutines_inline", "last_us"), at_least(10))
          for n in HERDS),
        row("bytes that `co_call` adds to a coroutine that waits inline, in its frame and beyond", "≤ 160",
            waiter("inline", "bytes", "bare_bytes"), at_most(160)),
        row("allocations beyond the frame", "0", waiter("inline", "allocations", "frame_allocations"), at_most(0)),
        row("bytes that `co_call` adds to a coroutine that waits with an executor, in its frame and beyond", "≤ 160",
            waiter("executor", "bytes", "bare_bytes"), at_most(160)),
        row("allocations beyond the frame", "1", waiter("executor", "allocations", "frame_allocations"), at_most(1)),
        *(row(f"64 coroutines on 2 threads, one key, loader {LOADERS[loader]}: fresh answers a second, times Go's", "≥ 1",
              ratio(hot.format(loader, "coroutines_executor"), hot.format(loader, "go"), "fresh/s"), at_least(1))
          for loader in ("10us_busy", "1ms_busy")),
        *(row(f"`co_call` that nobody joins, loader {title}: times `do_call`", "≤ 5",
              ratio(f"unjoined/{name}", "unjoined/do_call", "cpu_time"), at_most(5))
          for name, title in (("co_call_value", "a function"), ("co_call_coroutine", "a coroutine"))),
        row("its allocations, loader a function", "≤ 2",
            results.get("async_counts/unjoined/co_call_value", "allocations"), at_most(2)),
        row("its allocations, loader a coroutine, with the loader's own frame", "≤ 3",
            results.get("async_counts/unjoined/co_call_coroutine", "allocations"), at_most(3)),
        row("bytes that a million waiters leave behind which join a hung call and leave it", "0",
            results.get("async_counts/leave/waiters:1000000/singleflight", "bytes"), at_most(0)),
        row("to leave a call beside 100,000 others: times beside 1", "≤ 2",
            ratio("leave/others:100000/singleflight", "leave/others:1/singleflight", "cpu_time"), at_most(2)),
    ])


def section_cost(results):
    rows = []
    for name in dict.fromkeys(["floor", "system_call", *results.last_parts("cost/key:integer/"),
                               *results.last_parts("cost/key:string/")]):
        row = [NAMES[name]]
        for key in ("integer", "string"):
            mine = results.get(f"cost/key:{key}/{name}", "cpu_time") or \
                (results.get(f"cost/key:none/{name}", "cpu_time") if key == "integer" else None)
            ours = results.get(f"cost/key:{key}/singleflight", "cpu_time")
            row += [cell(mine, lambda ns: f"{number(ns)} ns"), cell(mine.over(ours), spread=False) if mine and ours else ""]
        for counter in ("allocations", "mutexes"):
            row.append(" / ".join(filter(None, (cell(results.get(f"counts/key:{key}/{name}", counter), spread=False)
                                                for key in ("integer", "string")))))
        rows.append(row)
    return table(["", "integer key", "times ours", "string key", "times ours", "allocations", "mutexes locked"], rows)


def section_threads(results):
    text = ""
    for key in ("integer", "string"):
        rows = []
        prefix = f"cost_threads/key:{key}/threads:8/"
        for name in ["floor", *results.last_parts(prefix)]:
            row = [NAMES[name]]
            for n in (1, 2, 4, 8):
                figure = results.get(f"cost_threads/key:{'none' if name == 'floor' else key}/threads:{n}/{name}", "calls/s")
                row.append(cell(figure, lambda calls: f"{number(calls / 1e6)} M"))
            rows.append(row)
        text += f"Calls a second, {key} keys:\n\n" + table(["", "1 thread", "2", "4", "8"], rows) + "\n"
    return text


def section_one_key(results):
    text = ""
    for loader, title in LOADERS.items():
        prefix = f"dedup/one_key/callers:64/loader:{loader}/"
        rows = []
        for name in results.last_parts(prefix):
            get = lambda counter: results.get(prefix + name, counter)
            rows.append([NAMES[name], cell(get("requests/s"), spread=False), cell(get("stale%"), percent, False),
                         cell(get("fresh/s")), cell(get("loads/s"), spread=False), cell(get("dedup"), spread=False),
                         cell(get("p50_us"), milliseconds, False), cell(get("p99_us"), milliseconds, False)])
        text += f"The loader takes: {title}.\n\n" + table(
            ["", "requests/s", "stale", "**fresh/s**", "executions/s", "fresh per execution", "p50", "p99"], rows) + "\n"
    return text


def by(results, template, names, values, counter, form=number, spread=True):
    """The rows of a table with one column a value."""
    return [[NAMES[name], *(cell(results.get(template.format(value) + name, counter), form, spread)
                            for value in values)] for name in names]


def section_callers(results):
    template = "dedup/one_key/callers:{}/loader:1ms_asleep/"
    names = results.last_parts(template.format(64))
    callers = (2, 8, 64, 256)
    head = ["", *(f"{n} callers" for n in callers)]
    return ("Fresh answers a second:\n\n" + table(head, by(results, template, names, callers, "fresh/s")) +
            "\nFresh answers per execution:\n\n" +
            table(head, by(results, template, names, callers, "dedup", spread=False)) +
            "\n99 % of the callers waited no longer than:\n\n" +
            table(head, by(results, template, names, callers, "p99_us", milliseconds, False)))


def section_zipf(results):
    template = "dedup/zipf/callers:64/loader:{}/"
    names = results.last_parts(template.format("1ms_asleep"))
    head = ["", *LOADERS.values()]
    return ("Fresh answers a second:\n\n" + table(head, by(results, template, names, LOADERS, "fresh/s")) +
            "\nFresh answers per execution:\n\n" + table(head, by(results, template, names, LOADERS, "dedup", spread=False)) +
            "\nStale answers:\n\n" + table(head, by(results, template, names, LOADERS, "stale%", percent, False)) +
            "\n99 % of the callers waited no longer than:\n\n" +
            table(head, by(results, template, names, LOADERS, "p99_us", milliseconds, False)))


def section_wake(results):
    rows = []
    for name in results.last_parts("wake/followers:64/"):
        row = [NAMES[name]]
        for followers in (8, 64, 256):
            mine = results.get(f"wake/followers:{followers}/{name}", "last_us")
            bare = results.get(f"wake/followers:{followers}/bare_future", "last_us")
            row += [cell(mine, lambda us: f"{number(us)} µs"),
                    cell(mine.over(bare), lambda ratio: f"{ratio:.2f}", False) if mine and bare else ""]
        rows.append(row)
    return table(["", "8 followers", "times bare", "64", "times bare", "256", "times bare"], rows)


def section_saving(results):
    text = ""
    for keys in ("100", "10000"):
        for loop, parameter, values, of in (("closed", "callers", (8, 64, 256), "callers"),
                                            ("open", "rate", (2000, 4000, 8000, 16000), "requests/s")):
            template = f"saving/{loop}/keys:{keys}/{parameter}:{{}}/"
            rows = []
            for name in results.last_parts(template.format(values[0])):
                row = [NAMES[name]]
                for value in values:
                    get = lambda counter: results.get(template.format(value) + name, counter)
                    row.append(" · ".join((cell(get("fresh/s"), spread=False), cell(get("loads/s"), spread=False),
                                           cell(get("p99_us"), milliseconds, False))) if get("fresh/s") else "")
                rows.append(row)
            text += (f"{int(keys):,} keys, {loop} loop: fresh answers a second · queries a second · p99\n\n" +
                     table(["", *(f"{value:,} {of}" for value in values)], rows) + "\n")
    return text


def section_extras(results):
    extras = {
        "plain": "`do_call(key, fn)`", "deadline": "`{.deadline = t}`",
        "deadline_from_now": "the same, `t` from `steady_clock::now()`", "stop_token": "`{.stop = token}`",
        "attempts": "`{.attempts = 3}`", "loader_takes_stop_token": "a loader that takes a stop token",
        "max_age": "group with `max_age`", "max_waiters": "group with `max_waiters`",
        "nested": "two calls, one in the loader of the other",
        "do_call_on": "`do_call_on`, an executor that runs it at once",
        "do_async": "`do_async`, likewise, and `get()`",
    }
    results.all_named({name[len("extras/"):] for name in results.rows if name.startswith("extras/")}, extras,
                      "section_extras", "extras/")
    plain = results.get("extras/plain", "cpu_time")
    rows = []
    for name, title in extras.items():
        mine = results.get(f"extras/{name}", "cpu_time")
        rows.append([title, cell(mine, lambda ns: f"{number(ns)} ns"),
                     cell(mine.over(plain), spread=False) if mine and plain else ""])
    return table(["", "a call", "times plain"], rows)


def section_bulk(results):
    kinds = {"empty/key:integer": "integer keys, a loader that does nothing",
             "empty/key:string": "string keys, likewise",
             "50us/key:string": "string keys, a query of 50 µs"}
    rows = []
    for kind, title in kinds.items():
        for keys in (1, 10, 100, 1000):
            many, single = (results.get(f"bulk/{kind}/keys:{keys}/{how}", "cpu_time") for how in ("do_many", "do_call"))
            rows.append([title, f"{keys:,}", *(cell(figure, lambda ns: f"{number(ns / keys)} ns") for figure in (many, single)),
                         cell(single.over(many), spread=False) if many and single else ""])
    return table(["", "keys", "`do_many`, a key", "as many `do_call`s, a key", "times faster"], rows)


def section_read(results):
    ns = lambda value: f"{number(value)} ns"
    rows = []
    for what, title in (("hit", "a hit"), ("miss", "a miss")):
        bare, through = (results.get(f"read/{what}/{how}", "cpu_time") for how in ("bare", "read_through"))
        rows.append([title, cell(bare, ns), cell(through, ns),
                     cell(through.over(bare), spread=False) if bare and through else ""])
    return table(["", "bare cache", "`read_through`", "times"], rows)


def section_observers(results):
    titles = {
        "none": "no observer", "counters": "an observer that counts calls and joins",
        "histograms": "the same, and `prometheus_observer` with both histograms",
    }
    results.all_named({name[len("observers/"):] for name in results.rows if name.startswith("observers/")}, titles,
                      "section_observers", "observers/")
    plain = results.get("observers/none", "cpu_time")
    rows = []
    for name, title in titles.items():
        mine = results.get(f"observers/{name}", "cpu_time")
        rows.append([title, cell(mine, lambda ns: f"{number(ns)} ns"),
                     cell(mine.minus(plain), lambda ns: f"{number(ns)} ns", spread=False) if mine and plain else ""])
    return table(["", "a call", "more"], rows)


def section_growth(results):
    ns = lambda value: f"{number(value)} ns"

    def one_row(title, template, values, counter, form=number):
        return [title, *(cell(results.get(template.format(value), counter), form) for value in values)]

    def grow(head, values, *rows):
        return table([head, *(f"{value:,}" for value in values)], rows) + "\n"

    keys, live, nested = (1, 1_000, 100_000, 1_000_000), (100, 1_000, 10_000, 100_000), (10, 100, 1_000)
    shards, sizes = (1, 2, 4, 8, 16, 64, 256), (1, 1_000, 100_000, 1_000_000)
    shared = "growth/shared/bytes:{}/"
    microseconds = lambda value: milliseconds(value / 1000)
    return (
        grow("keys, one after the other", keys, one_row("a call", "growth/keys:{}/singleflight", keys, "cpu_time", ns)) +
        grow("calls in flight on an executor", live,
             one_row("another call", "growth/live:{}/singleflight", live, "cpu_time", ns),
             one_row("heap bytes each", "growth/live:{}/singleflight", live, "bytes_each")) +
        grow("calls in flight, each in the loader of the one before", nested,
             one_row("calls a second", "growth/nested:{}/singleflight", nested, "calls/s"),
             one_row("stack bytes each", "growth/nested:{}/singleflight", nested, "bytes_each")) +
        grow("shards", shards,
             one_row("calls a second, 8 threads", "growth/shards:{}/threads:8/singleflight", shards, "calls/s")) +
        grow("bytes of the value", sizes,
             one_row("a call that nobody joins", "growth/unshared/bytes:{}/singleflight", sizes, "cpu_time", ns),
             one_row("its copies", "growth/unshared/bytes:{}/singleflight", sizes, "copies"),
             one_row("a leader and 8 followers: the last is back after", shared + "singleflight", sizes, "real_time", microseconds),
             one_row("their copies", shared + "singleflight", sizes, "copies"),
             one_row("textbook: the last is back after", shared + "textbook_mended", sizes, "real_time", microseconds),
             one_row("their copies", shared + "textbook_mended", sizes, "copies")))


def section_fleet(results):
    microseconds = lambda value: f"{number(value)} µs"
    costs = {"get": ("GET that hits", 1), "entry": ("`fleet.load` that hits", 1),
             "miss_alone": ("miss without a fleet: GET, second look, SET", 3),
             "miss_leader": ("miss of the leader: GET, enter, fill", 3)}
    results.all_named({name[len("fleet/cost/"):] for name in results.rows if name.startswith("fleet/cost/")},
                      costs, "section_fleet", "fleet/cost/")
    plain = results.get("fleet/cost/miss_alone", "real_time")
    rows = []
    for name, (title, trips) in costs.items():
        mine = results.get(f"fleet/cost/{name}", "real_time")
        rows.append([title, str(trips) if mine else "", cell(mine, lambda ns: microseconds(ns / 1000)),
                     cell(mine.over(plain), lambda ratio: f"{ratio:.2f}", False) if mine and plain else ""])
    text = table(["one process, a value of 1,000 bytes", "round trips", "time", "times the plain miss"], rows) + "\n"

    ways = {"group": "the group alone", "fleet": "**fleet**", "handed_over": "**fleet**, nothing is kept"}
    two = lambda value: f"{value:.2f}"
    rows = []
    for processes in (2, 5, 10):
        for way, title in ways.items():
            get = lambda counter: results.get(f"fleet/cold/processes:{processes}/{way}", counter)
            delay = way != "group"
            rows.append([f"{processes}, {title}", cell(get("loads"), two, False),
                         cell(delay and get("delay_us"), milliseconds), cell(delay and get("delay_p99_us"), milliseconds),
                         cell(delay and get("commands"), two, False)])
    text += table(["processes that want a cold key at once", "loads a key", "the others are back after, median",
                   "99 %", "round trips of a process"], rows) + "\n"
    rows = [[f"{processes}", *(cell(results.get(f"fleet/expiring/processes:{processes}/{way}", "loads"), two, False)
                               for way in ("group", "fleet"))] for processes in (2, 5, 10)]
    return text + table(["processes of 4 threads; 10 keys that live for 50 ms: loads at each expiry",
                         ways["group"], ways["fleet"]], rows)
HERDS = (64, 256, 10_000, 100_000)


def section_herd(results):
    template = "herd/waiters:{}/"
    names = results.last_parts(template.format(64))
    head = ["", *(f"{n:,} waiters" for n in HERDS)]
    joins = [name for name in names if name != "threads"]
    return ("From the end of the load until the last waiter has gone on:\n\n" +
            table(head, by(results, template, names, HERDS, "last_us", milliseconds)) +
            "\nTo begin a waiter that joins the call, each:\n\n" +
            table(head, by(results, template, joins, HERDS, "join_ns", lambda ns: f"{number(ns)} ns")))


def section_waiter(results):
    template = "async_counts/waiter/waiters:100000/"
    rows = []
    for name in results.last_parts(template):
        get = lambda counter: results.get(template + name, counter)
        beyond = lambda counter: cell(Figure(a - b for a, b in zip(get(counter), get(f"frame_{counter}"))))
        rows.append([NAMES[name], cell(get("bytes")), cell(get("frame_bytes")), cell(get("bare_bytes")),
                     beyond("bytes"), beyond("allocations")])
    rows.append([NAMES["go"], cell(results.get("herd/waiters:100000/go", "bytes")), "", "", "", ""])
    return table(["", "bytes in all", "of these its frame", "the frame without `co_call`", "beyond its frame",
                  "allocations beyond its frame"], rows)


def section_hot(results):
    template = "dedup/one_key/callers:64/loader:{}/"
    loaders = [loader for loader in LOADERS if loader != "none"]
    names = [name for name in results.last_parts(template.format("10us_busy"))
             if name in ("singleflight", "coroutines_executor", "go")]
    head = ["", *(LOADERS[loader] for loader in loaders)]
    return ("Fresh answers a second:\n\n" + table(head, by(results, template, names, loaders, "fresh/s")) +
            "\nFresh answers per execution:\n\n" +
            table(head, by(results, template, names, loaders, "dedup", spread=False)))


def section_unjoined(results):
    titles = {
        "do_call": "`do_call`, as a thread", "co_call_value": "`co_call`, its loader a function",
        "co_call_coroutine": "`co_call`, its loader a coroutine, which is done at once",
        "async_call": "`async_call`, ended by `start`",
    }
    results.all_named({name[len("unjoined/"):] for name in results.rows if name.startswith("unjoined/")}, titles,
                      "section_unjoined", "unjoined/")
    plain = results.get("unjoined/do_call", "cpu_time")
    rows = []
    for name, title in titles.items():
        mine = results.get(f"unjoined/{name}", "cpu_time")
        counted = lambda counter: cell(results.get(f"async_counts/unjoined/{name}", counter))
        rows.append([title, cell(mine, lambda ns: f"{number(ns)} ns"),
                     cell(mine.over(plain), spread=False) if mine and plain else "",
                     counted("allocations"), counted("bytes")])
    return table(["", "a call", "times `do_call`", "allocations", "their bytes"], rows)


def section_leave(results):
    others = (1, 1_000, 100_000)
    template = "leave/others:{}/singleflight"
    return table(["others that wait", *(f"{n:,}" for n in others)], [
        ["to leave, and to join again", *(cell(results.get(template.format(n), "cpu_time"),
                                               lambda ns: f"{number(ns)} ns") for n in others)]])


SECTIONS = {
    "machine": section_machine, "reached": section_reached, "cost": section_cost, "threads": section_threads,
    "one_key": section_one_key, "callers": section_callers, "zipf": section_zipf, "wake": section_wake,
    "saving": section_saving, "extras": section_extras, "bulk": section_bulk, "read": section_read, "growth": section_growth,
    "fleet": section_fleet,
    "herd": section_herd, "waiter": section_waiter, "hot": section_hot, "unjoined": section_unjoined,
    "leave": section_leave, "observers": section_observers,
}

# --- Plots -------------------------------------------------------------------------------------------

COLOURS = {
    "singleflight": "#d62728", "textbook": "#7f7f7f", "textbook_mended": "#1f77b4", "mutex_per_key": "#2ca02c",
    "none": "#000000", "go": "#17becf", "tbb_future_mended": "#9467bd", "bare_future": "#000000",
    "coroutines_inline": "#d62728", "coroutines_executor": "#ff7f0e", "threads": "#1f77b4",
    "bare_future_deadline": "#7f7f7f", "singleflight_deadline": "#ff7f0e", "singleflight_stop_token": "#e377c2",
}


class Plot:
    """Lines over a parameter, one for each alternative, the whiskers from quartile to quartile."""

    def __init__(self, name, title, x, y, template, values, names, counter, scale=1):
        self.name, self.title, self.x, self.y = name, title, x, y
        self.template, self.values, self.names = template, values, names
        self.counter, self.scale = counter, scale

    def lines(self, results):
        for name in self.names:
            points = []
            for value in self.values:
                figure = results.get(self.template.format(value) + name, self.counter)
                if figure:
                    points.append(" ".join(str(at) for at in (value, *(
                        self.scale * y for y in (figure.median, *figure.quartiles)))))
            if points:
                yield name, points

    def draw(self, results, directory):
        lines = list(self.lines(results))
        if not lines:
            return
        script = [
            "set term svg size 900,400 font 'sans-serif,13' background '#ffffff'",
            f"set output '{directory / self.name}.svg'",
            f"set title '{self.title}'", f"set xlabel '{self.x}'", f"set ylabel '{self.y}'",
            "set termoption noenhanced", "set logscale xy",
            f"set format y '{'%.0s%c' if self.y.endswith('/s') else '%g'}'",
            "set key outside right center Left reverse samplen 2 font ',11'", "set grid ytics lc '#dddddd'",
            f"set xtics ({', '.join(str(value) for value in self.values)})",
            f"set xrange [{self.values[0] * 0.85}:{self.values[-1] * 1.15}]",
        ]
        curves = []
        for at, (name, points) in enumerate(lines):
            script += [f"$data{at} << EOD", *points, "EOD"]
            width = 3 if name == "singleflight" else 1.5
            colour = COLOURS[name]
            label = NAMES[name].replace("*", "").replace("`", "")
            curves.append(f"$data{at} using 1:2:3:4 with yerrorlines lw {width} pt 7 ps 0.5 lc '{colour}' title '{label}'")
        script.append("plot " + ", ".join(curves))
        subprocess.run(["gnuplot"], input="\n".join(script), text=True, check=True)


PLOTS = [
    Plot("fresh", "One key, a loader of 1 ms (asleep): fresh answers a second", "callers", "fresh answers/s",
         "dedup/one_key/callers:{}/loader:1ms_asleep/", (2, 8, 64, 256),
         ("singleflight", "textbook_mended", "mutex_per_key", "go", "none", "textbook"), "fresh/s"),
    Plot("threads", "A call that nobody joins, a string key for each thread", "threads", "calls/s",
         "cost_threads/key:string/threads:{}/", (1, 2, 4, 8),
         ("singleflight", "mutex_per_key", "go", "tbb_future_mended", "textbook"), "calls/s"),
    Plot("wake", "From the end of the loader to the last return", "followers", "µs",
         "wake/followers:{}/", (8, 64, 256),
         ("bare_future", "singleflight", "textbook_mended", "mutex_per_key", "bare_future_deadline",
          "singleflight_deadline", "singleflight_stop_token", "go"), "last_us"),
    Plot("saving", "8 slots, 2 ms a query, 100 keys: 99 % are answered within", "requests/s", "ms",
         "saving/open/keys:100/rate:{}/", (2000, 4000, 8000, 16000),
         ("none", "mutex_per_key", "textbook", "textbook_mended", "singleflight", "go"), "p99_us", 1e-3),
    Plot("herd", "From the end of the load until the last waiter has gone on", "waiters", "ms", "herd/waiters:{}/", HERDS,
         ("coroutines_inline", "coroutines_executor", "threads", "go"), "last_us", 1e-3),
]


def write(directory, docs=None):
    """Reports on the runs in a directory, there and, if it is given, in the documentation."""
    results = Results(directory)
    sections = {name: make(results) for name, make in SECTIONS.items()}
    summary = {name: {key: {"median": f.median, "spread": f.spread} for key, f in row.items()}
               for name, row in sorted(results.rows.items())}
    (directory / "results.json").write_text(json.dumps({"context": results.context, "rows": summary}, indent=1))
    (directory / "benchmarks.md").write_text(
        "\n".join(f"## {name.replace('_', ' ').capitalize()}\n\n{text}" for name, text in sections.items() if text.strip()))
    if shutil.which("gnuplot"):
        for plot in PLOTS:
            plot.draw(results, directory)
    else:
        print("bench: no gnuplot here, so no plots")
    print(f"bench: {directory}/ has results.json, benchmarks.md and the plots; runs/ has every row")
    if docs:
        page = docs / "benchmarks.md"
        markers.fill(page, "bench", sections)
        (docs / "benchmarks").mkdir(exist_ok=True)
        for plot in directory.glob("*.svg"):
            shutil.copy(plot, docs / "benchmarks")
        print(f"bench: {page} is up to date")


if __name__ == "__main__":
    root = pathlib.Path(__file__).resolve().parent.parent
    write(root / "build/bench", root / "docs" if "--docs" in sys.argv[1:] else None)
