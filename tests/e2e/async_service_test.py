# SPDX-License-Identifier: MIT
"""examples/async_service from end to end: thousands of connections that ask for one key at the same time, in
front of a backend that answers when the test says so. What comes next is awaited, never timed."""

import asyncio
import os
import resource
import signal
import unittest
import warnings

PROGRAM = os.environ["ASYNC_SERVICE"]
PATIENCE = 300  # seconds until what is waited for has failed to come
CONNECTIONS = 2_000


class Backend:
    """Holds each request until it is released or its client has hung up."""

    def __init__(self):
        self.asked = []  # the paths
        self.cancelled = 0
        self.answered = 0
        self.released = asyncio.Event()

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.split()[1].decode())
        gone = asyncio.ensure_future(reader.read(1))
        released = asyncio.ensure_future(self.released.wait())
        await asyncio.wait((gone, released), return_when=asyncio.FIRST_COMPLETED)
        if released.done():
            body = b"<h1>" + self.asked[-1].encode() + b"</h1>"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            self.answered += 1
        else:
            self.cancelled += 1
        gone.cancel()
        released.cancel()
        writer.close()


async def await_that(condition, what):
    async with asyncio.timeout(PATIENCE):
        while not (await condition() if asyncio.iscoroutinefunction(condition) else condition()):
            await asyncio.sleep(0.005)


class AsyncService(unittest.IsolatedAsyncioTestCase):
    deadline_ms = 3_600_000  # none that this machine could reach

    async def asyncSetUp(self):
        asyncio.get_running_loop().set_debug(False)  # it tells of what is slow
        warnings.simplefilter("ignore", ResourceWarning)  # connections end with the service
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.backend = Backend()
        await self.backend.start()
        self.service = await asyncio.create_subprocess_exec(
            PROGRAM, "0", str(self.backend.port), str(self.deadline_ms), stdout=asyncio.subprocess.PIPE)
        self.port = int((await self.service.stdout.readline()).split()[-1])

    async def asyncTearDown(self):
        self.service.send_signal(signal.SIGTERM)
        self.assertEqual(await asyncio.wait_for(self.service.wait(), PATIENCE), 0)
        self.backend.server.close()

    async def ask(self, path):
        """Returns the streams of a connection that has asked."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        return reader, writer

    async def answer(self, streams):
        """Returns the status and the body."""
        reader, writer = streams
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)).decode().lower()
        length = int(head.partition("content-length: ")[2].split()[0])
        body = await reader.readexactly(length)
        writer.close()
        return int(head.split()[1]), body.decode()

    async def waiting(self):
        _, text = await self.answer(await self.ask("/stats"))
        return int(text.split()[1].rstrip(","))

    async def crowd(self, path):
        """Connections that all wait for one key."""
        all_of_them = []
        for _ in range(0, CONNECTIONS, 100):
            all_of_them += await asyncio.gather(*(self.ask(path) for _ in range(100)))
        await self.await_waiting(CONNECTIONS)
        return all_of_them

    async def await_waiting(self, number):
        async def reached():
            return await self.waiting() == number
        await await_that(reached, f"{number} requests to wait")


class Crowds(AsyncService):
    async def test_one_backend_request_answers_all(self):
        connections = await self.crowd("/template-details?id=welcome")
        self.backend.released.set()
        for answer in await asyncio.gather(*map(self.answer, connections)):
            self.assertEqual(answer, (200, "<h1>/welcome</h1>"))
        self.assertEqual(self.backend.asked, ["/welcome"])

    async def test_clients_that_hang_up_harm_nobody(self):
        connections = await self.crowd("/template-details?id=welcome")
        gone, stay = connections[::2], connections[1::2]  # the one that leads, too
        for _, writer in gone:
            writer.close()
        await self.await_waiting(len(stay))
        self.assertEqual(self.backend.cancelled, 0)
        self.backend.released.set()
        for answer in await asyncio.gather(*map(self.answer, stay)):
            self.assertEqual(answer, (200, "<h1>/welcome</h1>"))
        self.assertEqual(self.backend.asked, ["/welcome"])

    async def test_when_all_have_hung_up_the_backend_request_is_cancelled(self):
        for _, writer in await self.crowd("/template-details?id=welcome"):
            writer.close()
        await await_that(lambda: self.backend.cancelled == 1, "the backend request to be cancelled")
        self.assertEqual(await self.waiting(), 0)
        self.backend.released.set()
        again = await self.answer(await self.ask("/template-details?id=welcome"))
        self.assertEqual(again, (200, "<h1>/welcome</h1>"))
        self.assertEqual((self.backend.asked, self.backend.answered), (["/welcome", "/welcome"], 1))

    async def test_the_service_ends_while_requests_wait(self):
        await self.crowd("/template-details?id=welcome")

    async def test_other_paths_are_not_found(self):
        self.assertEqual((await self.answer(await self.ask("/nothing")))[0], 404)


class Deadlines(AsyncService):
    deadline_ms = 50

    async def test_a_request_waits_no_longer_than_its_deadline_and_the_backend_request_is_cancelled(self):
        while not self.backend.asked:  # a deadline that passes earlier is met, too
            status, text = await self.answer(await self.ask("/template-details?id=slow"))
            self.assertEqual(status, 504)
            self.assertIn("deadline", text)
        await await_that(lambda: self.backend.cancelled == len(self.backend.asked),
                         "the backend request to be cancelled")


if __name__ == "__main__":
    unittest.main()
