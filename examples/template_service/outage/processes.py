# SPDX-License-Identifier: MIT
"""The processes of the experiment: started in a directory of their own, on loopback and on free ports,
and ended by id on every path."""

import contextlib
import ctypes
import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import time

PASSWORD = "outage"
MARK = "SINGLEFLIGHT_OUTAGE"  # in the environment of every process, so that none is overlooked
PATIENCE = 60  # seconds for a server to start


class Failure(Exception):
    """Why the experiment has failed, in one sentence."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


INTERRUPTIONS = {signal.SIGINT, signal.SIGTERM}


@contextlib.contextmanager
def uninterrupted():
    """An interruption waits until the block has ended: none falls between a process and its record."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTIONS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare():
    """Runs in each new process. If this program is killed, the kernel ends what it has started."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTIONS)
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Fleet:
    """All processes that were started; leaving the `with` block ends them, and fails if any is left."""

    def __init__(self, directory):
        self.directory = directory
        self._running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with uninterrupted():
            for process in self._running[::-1]:  # end() takes it out
                self.end(process)
        left = self.left_behind()
        if left:
            raise Failure(f"processes were left behind: {left}")

    def start(self, name, command, niceness=0, executable=None, **options):
        """Starts a process in a session of its own: a Ctrl-C reaches this program alone, which ends
        the others in order."""
        with uninterrupted(), open(os.path.join(self.directory, name + ".log"), "ab") as log:
            options.setdefault("stdout", log)
            process = subprocess.Popen(
                ["nice", "-n", str(niceness)] + command if niceness else command,
                stderr=log, executable=executable, cwd=self.directory, start_new_session=True,
                preexec_fn=_prepare, env={**os.environ, MARK: self.directory}, **options)
            process.name = name
            self._running.append(process)
            return process

    def end(self, process):
        if process not in self._running:
            return
        self._running.remove(process)
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe:
                pipe.close()

    def log(self, name):
        with open(os.path.join(self.directory, name + ".log"), errors="replace") as log:
            return log.read()

    def left_behind(self):
        """The ids of processes that still carry the mark, also those that their children started."""
        mark = f"{MARK}={self.directory}".encode()
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/environ", "rb") as environment:
                    if mark in environment.read().split(b"\0"):
                        found.append(int(entry))
            except OSError:  # ended meanwhile, or another user's
                pass
        return found


def wait_until(ready, process, fleet):
    end = time.monotonic() + PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            raise Failure(f"{process.name} does not start; {process.name}.log says why")
        time.sleep(0.05)


class Redis:
    def __init__(self, fleet):
        self._fleet = fleet
        self.port = free_port()
        self.start()

    def start(self):
        # Debian's package of the server starts a service; its tools are the same program.
        program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
        self._process = self._fleet.start(
            "redis", ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                      "--dir", self._fleet.directory], executable=program)
        wait_until(self._answers, self._process, self._fleet)

    def _answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.settimeout(1)
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def kill(self):
        """Connections are refused from now on."""
        self._process.kill()
        self._fleet.end(self._process)

    def stop(self):
        """Connections hang from now on."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._process.send_signal(signal.SIGCONT)

    def end(self):
        self._fleet.end(self._process)


class MariaDb:
    """A server that gets what the others leave of the processors, as one on a machine of its own would
    take nothing from them; and that writes down when it began and ended to execute each query."""

    HISTORY = 100_000

    def __init__(self, fleet, niceness):
        self._fleet = fleet
        self._socket = os.path.join(fleet.directory, "mariadb.sock")
        self.port = free_port()
        self._data = os.path.join(fleet.directory, "mariadb")
        user = getpass.getuser()
        install = fleet.start("install", [
            "mariadb-install-db", "--no-defaults", f"--user={user}", f"--datadir={self._data}",
            "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"])
        if install.wait() != 0:
            raise Failure("MariaDB cannot be installed; install.log says why")
        fleet.end(install)
        self._niceness = niceness
        self.start()
        self.execute("CREATE DATABASE templates; "
                     f"CREATE USER template_service@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'; "
                     "GRANT ALL ON templates.* TO template_service@'127.0.0.1'")

    def start(self):
        user = getpass.getuser()
        schema = "--performance-schema"
        self._process = self._fleet.start("mariadb", [
            shutil.which("mariadbd", path=os.environ["PATH"] + ":/usr/sbin"), "--no-defaults",
            f"--user={user}", f"--datadir={self._data}", f"--socket={self._socket}", f"--port={self.port}",
            "--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-buffer-pool-size=128M",
            "--innodb-flush-log-at-trx-commit=2", schema,
            f"{schema}-max-sql-text-length=128", f"{schema}-max-digest-length=0",
            f"{schema}-consumer-events-statements-current=ON",
            f"{schema}-consumer-events-statements-history-long=ON",
            f"{schema}-events-statements-history-long-size={self.HISTORY}",
            f"{schema}-consumer-events-stages-current=ON",
            f"{schema}-consumer-events-stages-history-long=ON",
            f"{schema}-events-stages-history-long-size={self.HISTORY}",
            f"{schema}-instrument=stage/%=OFF", f"{schema}-instrument=stage/sql/Sending data=ON",
        ], self._niceness)
        wait_until(lambda: os.path.exists(self._socket), self._process, self._fleet)

    def end(self):
        self._fleet.end(self._process)

    def _start_client(self, *flags):
        return self._fleet.start(
            "sql", ["mariadb", "--no-defaults", "--user=root", f"--socket={self._socket}", "--batch",
                    "--skip-column-names", *flags],
            bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def execute(self, sql):
        """The rows, each a list of texts."""
        client = self._start_client()
        rows, _ = client.communicate(sql)
        self._fleet.end(client)
        if client.returncode != 0:
            raise Failure("MariaDB refuses; sql.log says why")
        return [line.split("\t") for line in rows.splitlines()]

    def open_client(self):
        """A connection that lasts: lines of SQL go in, rows come out."""
        return self._start_client("--unbuffered")


def flags_for(redis_port, mariadb_port):
    """What connects the service to these servers."""
    return ["--cache=redis", f"--redis-port={redis_port}", "--store=mariadb",
            f"--mariadb-port={mariadb_port}", f"--mariadb-password={PASSWORD}"]


class Service:
    """A process of the service, at a port that it chooses itself."""

    def __init__(self, fleet, name, program, flags=()):
        self._fleet = fleet
        self.process = fleet.start(name, [program, "--port=0", *flags])
        wait_until(lambda: self._listening() is not None, self.process, fleet)
        self.url = f"http://127.0.0.1:{self._listening()['port']}"

    def _listening(self):
        for line in self._fleet.log(self.process.name).splitlines():
            if line.startswith("{") and line.endswith("}"):
                event = json.loads(line)
                if event["event"] == "listening" and event["process"] == self.process.pid:
                    return event
        return None

    def end(self):
        self._fleet.end(self.process)


def fill_store(fleet, program, mariadb, templates):
    filling = fleet.start("fill", [
        program, "--store=mariadb", f"--mariadb-port={mariadb.port}",
        f"--mariadb-password={PASSWORD}", "--fill", f"--templates={templates}"])
    if filling.wait() != 0:
        raise Failure("the store cannot be filled; fill.log says why")
    fleet.end(filling)
