"""The reactor of the three services: Twisted's asyncio reactor on a uvloop event loop.

``twistd --reactor pbuvloop`` installs it (see ``twisted/plugins/pbcluster_plugins.py``). Without
uvloop the standard asyncio loop is used: slower, otherwise the same.

Timers are the loop's own. Twisted keeps a heap of them beside it and arms one timer of the loop for
the next, anew for nearly every call: some 20 µs for what the loop does in one, and the services set
two timers for each question that they ask or answer.

Calls from threads wake the loop by a descriptor of our own: ``os.eventfd_write`` lets the
interpreter go while it wakes the loop's thread, ``call_soon_threadsafe`` does not, and then the
thread that was woken has to wait for the one that woke it (measured: a quarter of the time in which
a follower's interpreter was busy). Several calls share one wake-up.

uvloop takes over the process's signal wake-up descriptor, so Twisted's own SIGCHLD waker stays
silent and a child that died while somebody held its pipes open was noticed only when they were
closed (measured: 2.1 s instead of 0.6 s). uvloop refuses a SIGCHLD handler of its own, but calls
Python's, so that one hands the reaping to the loop.

Connections that were reset are noticed by :mod:`pbcluster.resets`; uvloop alone tells nobody.
"""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet import asyncioreactor
from twisted.internet.base import ReactorBase
from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.main import installReactor
from twisted.internet.process import reapAllProcesses
from twisted.logger import Logger
from twisted.python.log import callWithLogger
from zope.interface import implementer

from pbcluster.resets import ResetWatch

log = Logger()

_Call = tuple[Callable[..., object], tuple[object, ...], Mapping[str, object]]


def install() -> None:
    """Install the reactor.

    :raises ReactorAlreadyInstalledError: another one is installed.
    """
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    installReactor(LoopTimersReactor(loop))
    from twisted.internet import reactor

    # First of all callbacks at start: services that spawn processes come later.
    reactor.callWhenRunning(_reap_on_sigchld, loop)


@implementer(IDelayedCall)
class LoopTimer:
    """A call to come. Moving it to later costs nothing until its first time has come."""

    __slots__ = ("_arguments", "_due", "_function", "_handle", "_keywords", "_reactor", "_state")

    def __init__(
        self,
        reactor: LoopTimersReactor,
        delay_s: float,
        function: Callable[..., object],
        arguments: tuple[object, ...],
        keywords: Mapping[str, object],
    ) -> None:
        self._reactor = reactor
        self._function = function
        self._arguments = arguments
        self._keywords = keywords
        #: What became of it: nothing yet (None), or the error of whoever still wants to change it.
        self._state: type[Exception] | None = None
        #: Seconds of the monotonic clock, as the loop's.
        self._due = time.monotonic() + delay_s
        self._arm(delay_s)

    def _arm(self, delay_s: float) -> None:
        loop = self._reactor.loop
        self._handle: asyncio.Handle
        if delay_s <= 0:
            self._handle = loop.call_soon(self._run)
        else:
            # uvloop counts milliseconds, and a timer must never be early.
            self._handle = loop.call_later(math.ceil(delay_s * 1000) / 1000, self._run)

    def _run(self) -> None:
        left_s = self._due - time.monotonic()
        if left_s > 0:
            self._arm(left_s)
            return
        self._end(AlreadyCalled)
        try:
            self._function(*self._arguments, **self._keywords)
        except BaseException:
            log.failure("a timer's function failed")

    def _end(self, state: type[Exception]) -> None:
        self._state = state
        self._reactor.timers.discard(self)

    def _check(self) -> None:
        if self._state is not None:
            raise self._state

    def getTime(self) -> float:
        """When it is due, by the reactor's clock."""
        now: float = self._reactor.seconds()
        return now + self._due - time.monotonic()

    def cancel(self) -> None:
        """Never call it. :raises AlreadyCalled, AlreadyCancelled: as they say."""
        self._check()
        self._handle.cancel()
        self._end(AlreadyCancelled)
        self._function, self._arguments, self._keywords = _nothing, (), {}

    def reset(self, secondsFromNow: float) -> None:
        """Call it so much later than now."""
        self._check()
        self._move(time.monotonic() + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        """Call it so much later than it was to be called."""
        self._check()
        self._move(self._due + secondsLater)

    def _move(self, due: float) -> None:
        sooner, self._due = due < self._due, due
        if sooner:
            self._handle.cancel()
            self._arm(due - time.monotonic())

    def active(self) -> bool:
        """Whether it is still to come."""
        return self._state is None


def _nothing() -> None:
    """What a cancelled timer would call; it holds on to nothing."""


class LoopTimersReactor(asyncioreactor.AsyncioSelectorReactor):
    """Twisted's asyncio reactor, with the loop's own timers."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.timers: set[LoopTimer] = set()
        self._from_threads: deque[_Call] = deque()
        self._woken = False
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._resets: ResetWatch[Any] = ResetWatch(self._failed)
        super().__init__(loop)
        loop.add_reader(self._wake_fd, self._run_from_threads)
        loop.add_reader(self._resets.descriptor, self._resets.look)

    def addReader(self, reader: Any) -> None:
        """See ``IReactorFDSet``."""
        new = reader not in self._readers
        super().addReader(reader)
        if new and reader in self._readers:
            self._resets.begin(self._readers[reader], reader)

    def addWriter(self, writer: Any) -> None:
        """See ``IReactorFDSet``."""
        new = writer not in self._writers and writer not in self._readers
        super().addWriter(writer)
        if new and writer in self._writers:
            self._resets.begin(self._writers[writer], writer)

    def removeReader(self, reader: Any) -> None:
        """See ``IReactorFDSet``."""
        descriptor = self._readers.get(reader)
        if descriptor is not None and reader not in self._writers:
            self._resets.end(descriptor)
        with suppress(RuntimeError):  # the loop's watch ended by itself: see ``resets``
            super().removeReader(reader)

    def removeWriter(self, writer: Any) -> None:
        """See ``IReactorFDSet``."""
        descriptor = self._writers.get(writer)
        if descriptor is not None and writer not in self._readers:
            self._resets.end(descriptor)
        with suppress(RuntimeError):
            super().removeWriter(writer)

    def _failed(self, selectable: Any) -> None:
        """Its descriptor has an error, which reading or writing finds."""
        callWithLogger(selectable, self._readOrWrite, selectable, selectable in self._readers)

    def callLater(  # type: ignore[override]
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """See ``IReactorTime``."""
        if delay < 0:
            raise ValueError(f"{delay} is before now")
        timer = LoopTimer(self, delay, callable, args, kwargs)
        self.timers.add(timer)
        return timer

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """See ``IReactorTime``."""
        return list(self.timers)

    def callFromThread(  # type: ignore[override]
        self, f: Callable[..., Any], *args: object, **kwargs: object
    ) -> None:
        """See ``IReactorFromThreads``."""
        self._from_threads.append((f, args, kwargs))
        # Whoever finds it set was heard: the loop clears it before it takes the calls.
        if not self._woken:
            self._woken = True
            os.eventfd_write(self._wake_fd, 1)

    def _run_from_threads(self) -> None:
        os.eventfd_read(self._wake_fd)
        self._woken = False
        for _ in range(len(self._from_threads)):
            function, arguments, keywords = self._from_threads.popleft()
            try:
                function(*arguments, **keywords)
            except BaseException:
                log.failure("a call from a thread failed")
        if self._from_threads and not self._woken:
            self._woken = True
            os.eventfd_write(self._wake_fd, 1)

    def stop(self) -> None:
        """See ``IReactorCore``."""
        ReactorBase.stop(self)
        # It fires the events of the shutdown.
        self.loop.call_soon_threadsafe(self.runUntilCurrent)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop event loop, or asyncio's own where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _reap_on_sigchld(loop: asyncio.AbstractEventLoop) -> None:
    def reap(_number: int, _frame: object) -> None:
        loop.call_soon_threadsafe(reapAllProcesses)

    signal.signal(signal.SIGCHLD, reap)
