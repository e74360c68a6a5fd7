"""Reads at a steady rate, whatever becomes of those before: what a crowd does to a gateway.

A client that waits for its answer before it asks again hides an outage: it sees one slow answer.
Here a read begins every so many milliseconds, on an idle connection or a new one, and each is
judged by itself. Runs in a thread with an event loop of its own, and with nothing of the platform's
own HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import attrs

#: Longer than a gateway holds a request.
TIMEOUT_S = 45.0
#: Idle connections kept; more were needed only while answers were slow.
MAX_IDLE = 64


@attrs.frozen
class Read:
    """One read that is over.

    :ivar status: of the answer; 0: none came. :ivar error: why, if none came.
    """

    begun_s: float
    took_s: float
    status: int
    error: str = ""


class PacedReads:
    """Asks for one path of one tenant.

    :ivar reads: those that are over, in the order of their ends.
    """

    def __init__(self, gateway: str, host: str, path: str, *, a_second: float) -> None:
        """
        :param gateway: base URL. :param host: the tenant's host name.
        """
        where = urlsplit(gateway)
        self.reads: list[Read] = []
        self._address = (where.hostname or "", where.port or 80)
        self._request = (f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").encode()
        self._every_s = 1.0 / a_second
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._stopped = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Read meanwhile; at the end no further read begins, and those under way are waited for."""
        thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join(TIMEOUT_S + 10.0)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        under_way: set[asyncio.Task[None]] = set()
        begin = loop.time()
        number = 0
        while not self._stopped.is_set():
            number += 1
            task = loop.create_task(self._read())
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(max(0.0, begin + number * self._every_s - loop.time()))
        if under_way:
            await asyncio.wait(under_way)
        for _, writer in self._idle:
            writer.close()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            status = await asyncio.wait_for(self._ask(), TIMEOUT_S)
            self.reads.append(Read(begun, loop.time() - begun, status))
        except (TimeoutError, OSError, EOFError, ValueError) as error:
            told = f"{type(error).__name__}: {error}"
            self.reads.append(Read(begun, loop.time() - begun, 0, told))

    async def _ask(self) -> int:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(self._request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.split("\r\n")
            found = [
                v for n, _, v in (f.partition(":") for f in fields) if n.lower() == "content-length"
            ]
            await reader.readexactly(int(found[0]))
        except BaseException:
            writer.close()
            raise
        if len(self._idle) < MAX_IDLE and "connection: close" not in head.lower():
            self._idle.append((reader, writer))
        else:
            writer.close()
        return int(line.split(" ")[1])
