"""Which of many connections are ready: an epoll of their own, which the reactor watches.

The reactor watches it only while there are connections or ports. A descriptor that was closed and
is another connection's by now, told ready in the same turn, is read in vain, which is harmless.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReactorTime,
    IReadDescriptor,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import classImplements

from pbcluster.web.epoll.shortcut import Shortcut, Turn

#: At most so many connections are served before the reactor does anything else.
AT_ONCE = 64
_IN = select.EPOLLIN
_OUT = select.EPOLLOUT
_END = select.EPOLLHUP | select.EPOLLERR
_DONE, _LOST = Failure(CONNECTION_DONE), Failure(CONNECTION_LOST)

log = Logger(__name__)


class EpollSet:
    """What transports need of a reactor; to the reactor below it is one descriptor that is read."""

    def __init__(self, reactor: Any) -> None:
        """
        :param reactor: provides IReactorCore, IReactorFDSet and IReactorTime.
        """
        self._reactor = reactor
        #: Made when it is needed: many who might connect never do.
        self._epoll: Any = None
        self._poll: Any = None
        self._turn: Turn = Turn()
        self._of: dict[Any, Shortcut] = {}
        self._by_descriptor: dict[int, Shortcut] = {}

    # -- for transports ---------------------------------------------------------------------------

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object
    ) -> IDelayedCall:
        """See ``IReactorTime``."""
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return call

    def seconds(self) -> float:
        """See ``IReactorTime``."""
        now: float = self._reactor.seconds()
        return now

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """See ``IReactorTime``."""
        calls: Sequence[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls

    def resolve(self, name: str) -> Deferred[str]:
        """See ``IReactorCore``."""
        found: Deferred[str] = self._reactor.resolve(name)
        return found

    def addReader(self, reader: Any) -> None:
        """See ``IReactorFDSet``."""
        self._watch(reader, _IN)

    def addWriter(self, writer: Any) -> None:
        """See ``IReactorFDSet``."""
        self._watch(writer, _OUT)

    def removeReader(self, reader: Any) -> None:
        """See ``IReactorFDSet``."""
        self._watch_no_more(reader, _IN)

    def removeWriter(self, writer: Any) -> None:
        """See ``IReactorFDSet``."""
        self._watch_no_more(writer, _OUT)

    def removeAll(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        owners = list(self._of)
        for owner in owners:
            self._watch_no_more(owner, _IN | _OUT)
        return owners

    def getReaders(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        return [owner for owner, one in self._of.items() if one.watched & _IN]

    def getWriters(self) -> list[Any]:
        """See ``IReactorFDSet``."""
        return [owner for owner, one in self._of.items() if one.watched & _OUT]

    def _watch(self, owner: Any, event: int) -> None:
        one: Shortcut | None = self._of.get(owner)
        if one is not None:
            if not one.watched & event:
                self._epoll.modify(one.descriptor, one.watched | event)
                one.watched |= event
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            self._poll = self._epoll.poll
        found: Shortcut = getattr(owner, "shortcut", None) or Shortcut(owner)
        descriptor = owner.fileno()
        self._epoll.register(descriptor, event)
        found.turn = self._turn
        found.descriptor, found.watched = descriptor, event
        if not self._of:
            self._reactor.addReader(self)
        self._of[owner] = self._by_descriptor[descriptor] = found

    def _watch_no_more(self, owner: Any, event: int) -> None:
        one: Shortcut | None = self._of.get(owner)
        if one is None or not one.watched & event:
            return
        left = one.watched & ~event
        if left:
            self._epoll.modify(one.descriptor, left)
            one.watched = left
            return
        del self._of[owner]
        descriptor, one.descriptor, one.watched = one.descriptor, -1, 0
        # Somebody closed it unasked, if the number is another one's already.
        if self._by_descriptor.get(descriptor) is one:
            del self._by_descriptor[descriptor]
            with suppress(OSError):
                self._epoll.unregister(descriptor)
        if not self._of:
            self._reactor.removeReader(self)

    def watch_on(self) -> None:
        """Be watched by the reactor again, if somebody took all out of it."""
        if self._of:
            self._reactor.addReader(self)

    # -- for the reactor --------------------------------------------------------------------------

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        number: int = self._epoll.fileno()
        return number

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "connections"

    def connectionLost(self, reason: Failure) -> None:
        """See ``IFileDescriptor``: the reactor ends, and so does all that is watched here."""
        for owner in self.removeAll():
            try:
                owner.connectionLost(reason)
            except BaseException as error:
                _failed(error)

    def doRead(self) -> None:
        """Serve those that are ready."""
        self._turn.begin()
        try:
            for descriptor, event in self._poll(0, AT_ONCE):
                one: Shortcut | None = self._by_descriptor.get(descriptor)
                if one is None:
                    continue
                if event == _IN and one.watched == _IN:
                    try:
                        why = one.read()
                    except BaseException as error:
                        why = _failed(error)
                    if why is not None:
                        self._disconnect(one.owner, why, True)
                else:
                    self._serve(one, event)
        finally:
            self._turn.end()

    def _serve(self, one: Shortcut, event: int) -> None:
        """Not only something to read: room to write, or an end, as Twisted's reactors take it; or
        somebody else changed meanwhile what is watched."""
        why: BaseException | None = None
        reading = False
        try:
            if event & _END and not event & _IN:
                reading = bool(one.watched & _IN)
                why = CONNECTION_DONE if reading else CONNECTION_LOST
            elif event & _IN and one.watched & _IN:
                reading = True
                why = one.read()
            if why is None and event & _OUT and one.watched & _OUT:
                reading = False
                why = one.owner.doWrite()
        except BaseException as error:
            why = _failed(error)
        if why is not None:
            self._disconnect(one.owner, why, reading)

    def _disconnect(self, owner: Any, why: BaseException, reading: bool) -> None:
        """As Twisted's reactors do it. Never fails."""
        known = _DONE if why is CONNECTION_DONE else _LOST if why is CONNECTION_LOST else None
        half = reading and known is _DONE
        try:
            self._watch_no_more(owner, _IN if half else _IN | _OUT)
        except OSError as error:
            _failed(error)
        try:
            if half:
                owner.readConnectionLost(_DONE)
            else:
                owner.connectionLost(known if known is not None else Failure(why))
        except BaseException as error:
            _failed(error)


def _failed(error: BaseException) -> BaseException:
    """What a protocol raised ends its connection and no other, as with Twisted's reactors."""
    log.failure("a connection's protocol failed")
    return error


# A decorator would keep it from becoming an extension type (pbcluster.compiled).
classImplements(EpollSet, IReactorFDSet, IReactorTime, IReadDescriptor)
