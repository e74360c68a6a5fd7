"""Loopback TCP proxies between the processes of a cluster, and what a network does to them.

A *link* ``(a, b)`` carries the connections that ``a`` opens to ``b``; what ``b`` answers on them
comes back on the same link. Raft members open a connection each to the other, so a link there is
one direction of their talk, and cutting one of the two is a one-way partition. Every port of ``b``
has one *door*, the same for all: processes pass addresses on to each other. Whose connection it is
is found out when it is accepted.

What can happen to a link, until :meth:`ProxyNet.heal` (each replaces what was before):

:meth:`~ProxyNet.cut`
    Open connections are reset; a new one is reset as soon as it is made (the port stays ours, so
    the kernel accepts it first).
:meth:`~ProxyNet.blackhole`
    Connections are accepted and nothing passes either way, not even an end. TCP would repeat what
    is lost, so bytes on their way are late, not lost: they arrive after healing if both ends still
    wait.
:meth:`~ProxyNet.mute` and :meth:`~ProxyNet.deafen`
    As a black hole in one direction: what who connected says does not arrive, or what it is told
    does not. (A network that loses packets one way lets no connection be made, since a handshake
    needs both; here it is made, so that requests are carried out whose answers never come.)
:meth:`~ProxyNet.delay`
    Every chunk arrives so many seconds later, each way, in order.
:meth:`~ProxyNet.drop`
    For each chunk (at most 4 KiB, as it was read) a die decides whether it is lost. A TCP stream
    with a hole is none, so the whole connection is reset instead: what is on its way is lost, and
    both ends must connect again. The dice come from the seed and the link's name.

:meth:`~ProxyNet.lose_answer`
    One request of a given look arrives, its answer does not: the connection is reset. Only
    this fault looks at bytes, so it is for ways without encryption, as to S3.

CURVE stays on. Everything runs in one thread with a loop of its own;
calls from other threads return once they have taken effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import socket
import struct
import threading
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

import attrs

from pbcluster.cli.layout import LOOPBACK

#: Bytes that one chunk has at most, and that a direction holds back at most: beyond, nothing more
#: is read, and the sender feels the back-pressure.
CHUNK_BYTES = 4096
HELD_BYTES = 1024 * 1024
#: How often, and after how long, it is asked again whose connection it is.
WHO_TRIES, WHO_AGAIN_S = 5, 0.02
#: No call of the harness waits longer for the thread.
CALL_TIMEOUT_S = 10.0

T = TypeVar("T")
Pair = tuple[str, str]


@attrs.frozen
class Fault:
    """What is done to a link. ``share``: of the chunks that reset their connection. ``unanswered``:
    the answer to a request that this pattern finds is lost, once. ``mute``: nothing goes there, and
    ``deaf``: nothing comes back; a black hole is both."""

    cut: bool = False
    mute: bool = False
    deaf: bool = False
    delay_s: float = 0.0
    share: float = 0.0
    unanswered: bytes = b""


FINE = Fault()


class _Link:
    """The connections of one process to another, and what is done to them."""

    def __init__(self, dice: random.Random) -> None:
        self.fault = FINE
        self.lost_answers = 0
        self._dice = dice
        self._changed = asyncio.Event()
        #: The writers of each connection, both ends.
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    def set(self, fault: Fault) -> None:
        """``fault`` from now on."""
        self.fault = fault
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if fault.cut:
            for writer in list(self._open):
                _reset(writer)

    async def close(self) -> None:
        """End all connections."""
        for writer in list(self._open):
            _reset(writer)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int
    ) -> None:
        """Carry an accepted connection to ``port`` until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        there: asyncio.StreamWriter | None = None
        try:
            if self.fault.cut:
                return
            while self.fault.mute and self.fault.deaf:
                await self._changed.wait()
            back, there = await asyncio.open_connection(LOOPBACK, port, limit=CHUNK_BYTES)
            self._open.add(there)
            if self.fault.cut:
                return
            asked = asyncio.Event()  # what is to stay without an answer
            await _both(
                self._carry(reader, there, self._look_at_request, asked, back=False),
                self._carry(back, writer, self._look_at_answer, asked, back=True),
            )
            # Both have ended: what is still in the kernel's buffers must arrive.
            writer.close()
            there.close()
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the target is away, or one end broke: the other one is told by the reset
        finally:
            for one in (writer, there):
                if one is not None:
                    _reset(one)
                    self._open.discard(one)
            self._tasks.discard(task)

    async def _passes(self, *, back: bool) -> None:
        """Wait while nothing passes in this direction."""
        while self.fault.deaf if back else self.fault.mute:
            await self._changed.wait()

    def _look_at_request(self, chunk: bytes, asked: asyncio.Event) -> None:
        if self.fault.unanswered and re.search(self.fault.unanswered, chunk):
            asked.set()

    def _look_at_answer(self, chunk: bytes, asked: asyncio.Event) -> None:
        """:raises ConnectionResetError: this answer is to be lost."""
        if chunk and asked.is_set() and self.fault.unanswered:
            self.fault = FINE
            self.lost_answers += 1
            raise ConnectionResetError

    async def _carry(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        look: Callable[[bytes, asyncio.Event], None],
        asked: asyncio.Event,
        *,
        back: bool,
    ) -> None:
        """One direction, until its end. :raises ConnectionResetError: the dice or ``look`` said
        so."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(HELD_BYTES // CHUNK_BYTES)
        await _both(
            self._take(source, held, lambda chunk: look(chunk, asked), back=back),
            self._give(held, target, back=back),
        )

    async def _take(
        self,
        source: asyncio.StreamReader,
        held: asyncio.Queue[tuple[float, bytes]],
        look: Callable[[bytes], None],
        *,
        back: bool,
    ) -> None:
        clock = asyncio.get_running_loop()
        while True:
            await self._passes(back=back)
            chunk = await source.read(CHUNK_BYTES)
            if chunk and self._dice.random() < self.fault.share:
                raise ConnectionResetError
            look(chunk)
            await held.put((clock.time() + self.fault.delay_s, chunk))
            if not chunk:
                return

    async def _give(
        self, held: asyncio.Queue[tuple[float, bytes]], target: asyncio.StreamWriter, *, back: bool
    ) -> None:
        clock = asyncio.get_running_loop()
        while True:
            due, chunk = await held.get()
            await asyncio.sleep(max(0.0, due - clock.time()))
            await self._passes(back=back)
            if not chunk:
                with contextlib.suppress(OSError):
                    target.write_eof()
                return
            target.write(chunk)
            await target.drain()


async def _both(*work: Coroutine[Any, Any, None]) -> None:
    """Run all until the end of the last; the first error ends the others."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection that was not closed: what was not sent is lost, the peer sees a reset."""
    transport = writer.transport
    if not transport.is_closing():
        with contextlib.suppress(OSError):
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _port_of(door: asyncio.Server) -> int:
    return int(door.sockets[0].getsockname()[1])


class ProxyNet:
    """All links of one cluster. Its calls may come from any thread."""

    def __init__(
        self, who: Callable[[int, int], str], seed: int = 0, reserved: Collection[int] = ()
    ) -> None:
        """
        :param who: the process whose connection comes from a port of this machine to another (a
            door); called in the proxies' thread. What is no end of a link is passed on untouched.
        :param seed: of the dice of :meth:`drop`.
        :param reserved: ports on which others will listen later: no door takes them.
        """
        self._who = who
        self._reserved = frozenset(reserved)
        self._seed = seed
        self._links: dict[Pair, _Link] = {}
        #: Port of a target → its door.
        self._doors: dict[int, asyncio.Server] = {}
        self._others = _Link(random.Random(0))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def link(self, a: str, b: str, port: int) -> int:
        """The port by which ``a`` reaches ``port`` of ``b`` from now on."""

        async def make() -> int:
            if (a, b) not in self._links:
                self._links[a, b] = _Link(random.Random(f"{self._seed}/{a}/{b}"))
            if port not in self._doors:
                self._doors[port] = await self._door(b, port)
            return _port_of(self._doors[port])

        return self._call(make())

    async def _door(self, b: str, port: int) -> asyncio.Server:
        refused: list[asyncio.Server] = []
        while True:
            door = await asyncio.start_server(
                lambda reader, writer: self._accepted(b, port, reader, writer),
                LOOPBACK,
                0,
                limit=CHUNK_BYTES,
            )
            if _port_of(door) not in self._reserved:
                break
            # Held until another one is found, so that none is given twice: this ends.
            refused.append(door)
        for each in refused:
            each.close()
        return door

    async def _accepted(
        self, b: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        a = await self._whose(writer)
        await self._links.get((a, b), self._others).pass_on(reader, writer, port)

    async def _whose(self, writer: asyncio.StreamWriter) -> str:
        """The kernel's table of connections is read while it changes, so a row can be missed: who
        is nobody is looked for again."""
        port, door = (writer.get_extra_info(end)[1] for end in ("peername", "sockname"))
        for _ in range(WHO_TRIES):
            if found := self._who(port, door):
                return found
            await asyncio.sleep(WHO_AGAIN_S)
        return ""

    def pairs(self) -> list[Pair]:
        """Every pair that has a link."""
        return sorted(pair for pair in self._links if pair[0])

    def cut(self, a: str, b: str) -> None:
        """Reset what is open, and whatever is opened. :raises KeyError: no such link."""
        self._set(a, b, Fault(cut=True))

    def isolate(self, name: str) -> None:
        """Cut every link from and to ``name``."""
        for a, b in self.pairs():
            if name in (a, b):
                self.cut(a, b)

    def blackhole(self, a: str, b: str) -> None:
        """Let nothing pass. :raises KeyError: no such link."""
        self._set(a, b, Fault(mute=True, deaf=True))

    def mute(self, a: str, b: str) -> None:
        """Let nothing arrive at ``b``. :raises KeyError: no such link."""
        self._set(a, b, Fault(mute=True))

    def deafen(self, a: str, b: str) -> None:
        """Let nothing come back to ``a``. :raises KeyError: no such link."""
        self._set(a, b, Fault(deaf=True))

    def delay(self, a: str, b: str, seconds: float) -> None:
        """Let everything arrive ``seconds`` later. :raises KeyError: no such link."""
        self._set(a, b, Fault(delay_s=seconds))

    def drop(self, a: str, b: str, share: float) -> None:
        """Reset the connection at ``share`` (0 to 1) of its chunks.

        :raises KeyError: no such link.
        """
        self._set(a, b, Fault(share=share))

    def lose_answer(self, a: str, b: str, request: bytes) -> None:
        """Let the next request in which the pattern ``request`` is found (within one chunk) arrive
        and lose its answer, once.

        :raises KeyError: no such link.
        """
        self._set(a, b, Fault(unanswered=request))

    def lost_answers(self, a: str, b: str) -> int:
        """How many answers were lost so on this link."""
        return self._links[(a, b)].lost_answers

    def heal(self, a: str, b: str) -> None:
        """Let everything pass again. :raises KeyError: no such link."""
        self._set(a, b, FINE)

    def heal_all(self) -> None:
        """Let everything pass everywhere."""
        for a, b in self.pairs():
            self.heal(a, b)

    def close(self) -> None:
        """End all connections and the thread. May be called twice."""
        if self._loop.is_closed():
            return

        async def end() -> None:
            for door in self._doors.values():
                door.close()
            for link in (*self._links.values(), self._others):
                await link.close()
            # Accepted, but still looking for whose they are: nobody else ends these, and a task
            # that is left says so on stderr, in the middle of whatever runs then.
            while rest := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in rest:
                    task.cancel()
                await asyncio.wait(rest, timeout=1.0)

        try:
            self._call(end())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_TIMEOUT_S)
            if not self._thread.is_alive():
                self._loop.close()

    def _set(self, a: str, b: str, fault: Fault) -> None:
        link = self._links.get((a, b))
        if link is None:
            known = ", ".join(f"{x}→{y}" for x, y in self.pairs())
            raise KeyError(f"nothing goes from {a} to {b} through a proxy; there are: {known}")

        async def run() -> None:
            link.set(fault)

        self._call(run())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_TIMEOUT_S)
