# SPDX-License-Identifier: MIT
"""What the end-to-end tests share: the real servers, the service in front of them, and its clients."""

import contextlib
import http.client
import json
import os
import re
import socket
import tempfile
import threading
import time
import unittest

from processes import Fleet, MariaDb, Redis, Service, fill_store, flags_for

PROGRAM = os.environ["TEMPLATE_SERVICE"]
TEMPLATES = 50
PATIENCE = 60  # seconds until what is waited for has failed to come


def await_that(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited a minute for: {what}")
        time.sleep(0.005)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)


class Metrics(dict):
    """One reading of /metrics: each sample's name, labels included, and its value."""

    def __init__(self, text):
        super().__init__()
        self.text = text
        for line in text.splitlines():
            if not line.startswith("#"):
                sample, value = line.rsplit(" ", 1)
                self[sample] = float(value)

    def sum(self, family):
        return sum(value for sample, value in self.items() if re.match(family + r"(\{|$)", sample))


class Client:
    """Asks one process of the service, by a connection for each request."""

    def __init__(self, service):
        self.service = service
        self._host, self._port = service.url.removeprefix("http://").split(":")

    def get(self, path, method="GET"):
        with contextlib.closing(http.client.HTTPConnection(self._host, int(self._port),
                                                           timeout=PATIENCE)) as connection:
            connection.request(method, path)
            return Answer(connection.getresponse())

    def details(self, template, locale="en"):
        return self.get(f"/template-details?id={template}&locale={locale}")

    def metrics(self):
        return Metrics(self.get("/metrics").body.decode())


class Crowd:
    """Requests that are made at the same time, each by a thread of its own."""

    def __init__(self, size, ask):
        self._answers = [None] * size
        self._threads = [threading.Thread(target=self._run, args=(i, ask)) for i in range(size)]
        for thread in self._threads:
            thread.start()

    def _run(self, index, ask):
        try:
            self._answers[index] = ask()
        except (OSError, http.client.HTTPException) as error:
            self._answers[index] = error

    def answers(self):
        for thread in self._threads:
            thread.join()
        return self._answers


def new_fleet(owner):
    """Processes, and a directory for them, that end with a test or with a class of tests."""
    return owner(Fleet(owner(tempfile.TemporaryDirectory())))


class EndToEnd(unittest.TestCase):
    """Each test has processes of the service of its own, which end with it."""

    def setUp(self):
        self.fleet = new_fleet(self.enterContext)

    def events(self, service, event):
        """The lines of the service's log about this event."""
        lines = self.fleet.log(service.process.name).splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]


class WithServers(EndToEnd):
    """With a Redis that is empty, and a MariaDB with templates 1 to TEMPLATES.

    All tests share one MariaDB, which takes long to make; it is as it was when a test begins."""

    mariadb = None

    @classmethod
    def setUpClass(cls):
        if WithServers.mariadb is None:
            fleet = new_fleet(unittest.enterModuleContext)
            WithServers.mariadb = MariaDb(fleet, niceness=0)
            fill_store(fleet, PROGRAM, cls.mariadb, TEMPLATES)

    def setUp(self):
        super().setUp()
        self.redis = Redis(self.fleet)
        self.mariadb.execute("UPDATE templates.template SET version = 1")

    def start_service(self, *flags, name="service", coalesce="on"):
        """A Redis that is slow because the machine is busy is not taken for one that is down."""
        defaults = [f"--coalesce={coalesce}", "--redis-timeout-ms=5000", "--drain-ms=1",
                    *flags_for(self.redis.port, self.mariadb.port)]
        given = {flag.split("=")[0] for flag in flags}
        return Client(Service(self.fleet, name, PROGRAM, [
            *(flag for flag in defaults if flag.split("=")[0] not in given), *flags]))

    def ask_redis(self, *words):
        """The first line of the reply."""
        with socket.create_connection(("127.0.0.1", self.redis.port), PATIENCE) as connection:
            connection.sendall(f"{' '.join(words)}\r\n".encode())
            with connection.makefile("rb") as reply:
                return reply.readline().decode().strip()

    @contextlib.contextmanager
    def queries_held(self):
        """No query of templates ends in here: each waits for the table."""
        client = self.mariadb.open_client()
        client.stdin.write("LOCK TABLES templates.template_section WRITE; SELECT 'locked';\n")
        assert client.stdout.readline().strip() == "locked"
        try:
            yield
        finally:
            client.stdin.write("UNLOCK TABLES; SELECT 'unlocked';\n")
            assert client.stdout.readline().strip() == "unlocked"
            client.stdin.close()
            client.wait()

    @contextlib.contextmanager
    def store_down(self):
        self.mariadb.end()
        try:
            yield
        finally:
            self.mariadb.start()
