# SPDX-License-Identifier: MIT
"""The measurements: each second by the services and by MariaDB, each request by the load generator, each
query by MariaDB."""

import collections
import re
import urllib.request

STATUS = ("Com_select", "Threads_connected", "Threads_running")
LED = 'singleflight_requests_total{group="templates",role="led"}'
JOINED = 'singleflight_requests_total{group="templates",role="joined"}'
METRICS = (LED, JOINED, "template_cache_up",
           "template_store_queries_total", "template_store_query_seconds_total")
OWN_CONNECTIONS = 2  # of the sampler and the updater


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class Sampler:
    """Counters of the store and of all services, read together."""

    def __init__(self, mariadb, services):
        self._client = mariadb.open_client()
        self._services = services

    def read(self):
        return {**self._store(), **self._metrics()}

    def _store(self):
        names = ",".join(f"'{name}'" for name in STATUS)
        self._client.stdin.write(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({names});\n")
        rows = [self._client.stdout.readline().split() for _ in STATUS]
        return {name: int(value) for name, value in rows}

    def _metrics(self):
        total = collections.Counter()
        for service in self._services:
            with urllib.request.urlopen(service.url + "/metrics", timeout=10) as answer:
                for line in answer.read().decode().splitlines():
                    name, _, value = line.partition(" ")
                    if name in METRICS:
                        total[name] += float(value)
        return dict(total)


def read_requests(lines):
    """(due, status, latency in ms) of each request."""
    for line in lines:
        due, status, latency = line.split(",")
        yield float(due), int(status), float(latency)


def by_second(requests, samples, length):
    """A row for each second; `samples` has the time and the counters at the end of each."""
    buckets = collections.defaultdict(list)
    for due, status, latency in requests:
        buckets[int(due)].append((status, latency))
    rows = []
    for second in range(length):
        answered = buckets[second]
        latencies = [latency for _, latency in answered]
        (then, before), (now, after) = samples[second], samples[second + 1]

        def rate(name):
            return (after[name] - before[name]) / (now - then)

        rows.append({
            "second": second,
            "requests": len(answered),
            "ok": sum(status == 200 for status, _ in answered),
            "unavailable": sum(status == 503 for status, _ in answered),
            "other": sum(status not in (200, 503) for status, _ in answered),
            "p50_ms": round(percentile(latencies, 0.5), 3),
            "p99_ms": round(percentile(latencies, 0.99), 3),
            "store_queries": round(rate("Com_select"), 1),
            "store_connections": after["Threads_connected"] - OWN_CONNECTIONS,
            "store_running": after["Threads_running"] - 1,  # without this query
            "led": round(rate(LED), 1),
            "joined": round(rate(JOINED), 1),
        })
    return rows


HISTORY = "performance_schema.events_{}_history_long"
QUERY = re.compile(r"/\* template-details id=(\d+) locale=(\w+) process=(\d+) \*/")


class QueryHistory:
    """Each execution of the query, as MariaDB has recorded it. A client may have the result before the
    server has put the statement away, so what counts is the stage in which the server computes and
    sends the rows."""

    def __init__(self, mariadb):
        self._mariadb = mariadb

    def clear(self):
        for kind in ("statements", "stages"):
            self._mariadb.execute("TRUNCATE TABLE " + HISTORY.format(kind))

    def read(self):
        """Lists of (start, end) for each (id, locale, process); times in picoseconds."""
        statements = self._mariadb.execute(
            "SELECT thread_id, event_id, LEFT(sql_text, 100) FROM " + HISTORY.format("statements") +
            " WHERE sql_text LIKE '/* template-details%'")
        keys = {(thread, event): QUERY.match(text).groups() for thread, event, text in statements}
        spans = {}
        for thread, event, start, end in self._mariadb.execute(
                "SELECT thread_id, nesting_event_id, MIN(timer_start), MAX(timer_end) FROM " +
                HISTORY.format("stages") + " GROUP BY thread_id, nesting_event_id"):
            if (thread, event) in keys:
                spans[thread, event] = (int(start), int(end))
        executions = collections.defaultdict(list)
        for statement, key in keys.items():
            executions[key].append(spans[statement])
        return executions


def all_spans(executions):
    """All queries for each key, of whatever process, with the time in seconds since the first of all.

    The first request of a run finds an empty cache, so the first query tells when the run has begun."""
    first = min((start for spans in executions.values() for start, _ in spans), default=0)
    keys = collections.defaultdict(list)
    for (template, locale, _), spans in executions.items():
        keys[int(template), locale] += [((start - first) / 1e12, (end - first) / 1e12)
                                        for start, end in spans]
    return keys


def herds(spans):
    """(time, queries) of each herd: of a query that began while no other for its key ran, with those
    that began until all of them had ended."""
    found = []
    until = -1.0
    for start, end in sorted(spans):
        if start >= until:
            found.append([start, 0])
            until = end
        found[-1][1] += 1
        until = max(until, end)
    return found


def most_at_once(spans):
    """How many of the executions ran at the same time, at most."""
    # An end and a start at the same instant are one after the other.
    changes = sorted([(end, -1) for _, end in spans] + [(start, 1) for start, _ in spans])
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most
