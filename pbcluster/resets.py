"""Connections that were reset, noticed on a uvloop event loop.

libuv answers an error on a watched descriptor (``EPOLLERR``: a reset, a refused connection, a pipe
whose reader is gone) by ending its watch, and uvloop tells nobody: whoever reads that connection
waits for ever. So every descriptor that Twisted watches stands in an epoll set of its own here,
with no events but the error that the kernel always reports. The loop watches that set.

It costs one system call when a watch begins, none while bytes flow. Edge-triggered, armed anew at
each beginning and after each look, so that nothing is missed while a reader is paused.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

#: Taken at once; the rest makes the set ready again.
MAX_AT_ONCE = 256

Watched = TypeVar("Watched", bound=Hashable)


class ResetWatch(Generic[Watched]):
    """Tells whose descriptor failed.

    :ivar descriptor: ready to read when :meth:`look` should be called.
    """

    def __init__(self, failed: Callable[[Watched], None]) -> None:
        """
        :param failed: called with each whose descriptor has an error; it should read or write.
        """
        self._failed = failed
        self._epoll = select.epoll()
        self._watched: dict[int, Watched] = {}
        self.descriptor = self._epoll.fileno()

    def begin(self, descriptor: int, who: Watched) -> None:
        """Watch; a second time, look again."""
        if descriptor < 0:
            return
        try:
            self._arm(descriptor)
        except PermissionError:
            return  # a plain file: it has no errors to wait for
        self._watched[descriptor] = who

    def end(self, descriptor: int) -> None:
        """Watch no more; the kernel forgets the descriptor when it is closed."""
        self._watched.pop(descriptor, None)

    def look(self) -> None:
        """Tell of the descriptors that failed."""
        for descriptor, events in self._epoll.poll(0, MAX_AT_ONCE):
            who = self._watched.get(descriptor)
            if who is None or not events & select.EPOLLERR:
                continue
            self._failed(who)
            if self._watched.get(descriptor) is who:
                self._arm(descriptor)  # there may be bytes before the error

    def _arm(self, descriptor: int) -> None:
        try:
            self._epoll.modify(descriptor, select.EPOLLET)
        except FileNotFoundError:
            self._epoll.register(descriptor, select.EPOLLET)
