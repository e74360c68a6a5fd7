"""Which of many connections are ready: an epoll of their own, which the reactor watches.

The reactor watches it only while there are connections. A descriptor that was closed and is another
connection's by now, told ready in the same turn, is read in vain, which is harmless.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
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
                one.watched |= event
                self._epoll.modify(one.descriptor, one.watched)
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            self._poll = self._epoll.poll
        found: Shortcut = getattr(owner, "shortcut", None) or Shortcut(owner)
        found.turn = self._turn
        found.descriptor, found.watched = owner.fileno(), event
        self._epoll.register(found.descriptor, event)
        if not self._of:
            self._reactor.addReader(self)
        self._of[owner] = self._by_descriptor[found.descriptor] = found

    def _watch_no_more(self, owner: Any, event: int) -> None:
        one: Shortcut | None = self._of.get(owner)
        if one is None or not one.watched & event:
            return
        one.watched &= ~event
        if one.watched:
            self._epoll.modify(one.descriptor, one.watched)
            return
        self._epoll.unregister(one.descriptor)
        del self._of[owner], self._by_descriptor[one.descriptor]
        one.descriptor = -1
        if not self._of:
            self._reactor.removeReader(self)

    # -- for the reactor --------------------------------------------------------------------------

    def fileno(self) -> int:
        """See ``IFileDescriptor``."""
        number: int = self._epoll.fileno()
        return number

    def logPrefix(self) -> str:
        """See ``ILoggingContext``."""
        return "connections"

    def connectionLost(self, reason: Failure) -> None:
        """See ``IFileDescriptor``: there is no connection here that could be."""

    def doRead(self) -> None:
        """Serve those that are ready."""
        self._turn.begin()
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
        self._turn.end()

    def _serve(self, one: Shortcut, event: int) -> None:
        """Not only something to read: room to write, or an end, which reading or writing finds; or
        somebody else changed meanwhile what is watched."""
        end = event & ~(_IN | _OUT)
        why, reading = None, bool((event & _IN or end) and one.watched & _IN)
        try:
            if reading:
                why = one.read()
            if why is None and one.watched & _OUT and (event & _OUT or (end and not reading)):
                reading = False
                why = one.owner.doWrite()
        except BaseException as error:
            why = _failed(error)
        if why is not None:
            self._disconnect(one.owner, why, reading)

    def _disconnect(self, owner: Any, why: BaseException, reading: bool) -> None:
        """As Twisted's reactors do it. Never fails."""
        known = _DONE if why is CONNECTION_DONE else _LOST if why is CONNECTION_LOST else None
        try:
            self.removeReader(owner)
            if reading and known is _DONE:
                owner.readConnectionLost(known)
            else:
                self.removeWriter(owner)
                owner.connectionLost(known if known is not None else Failure(why))
        except BaseException as error:
            _failed(error)


def _failed(error: BaseException) -> BaseException:
    """What a protocol raised ends its connection and no other, as with Twisted's reactors."""
    log.failure("a connection's protocol failed")
    return error


# A decorator would keep it from becoming an extension type (pbcluster.compiled).
classImplements(EpollSet, IReactorFDSet, IReactorTime, IReadDescriptor)
