"""Who is told at a member what was applied, and whether it leads.

What holds: a subscriber's fault is logged and stops nobody, since what it is told of has happened.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger

from pbcluster.controlplane.registry import Applied

log = Logger()


class Subscribers:
    """See the module.

    :ivar applied: called with each applied command. :ivar leadership: called with True when the
        member leads, with False when it does no more.
    """

    def __init__(self) -> None:
        self.applied: list[Callable[[Applied], None]] = []
        self.leadership: list[Callable[[bool], None]] = []

    def tell(self, applied: Applied) -> None:
        """A command was applied."""
        for callback in self.applied:
            try:
                callback(applied)
            except Exception:
                # The command is committed: whoever proposed it must hear so.
                index = applied.outcome.index
                log.failure("a subscriber failed at index {index}", index=index)

    def tell_leadership(self, leads: bool) -> None:
        """The member leads now, or no more."""
        for callback in self.leadership:
            try:
                callback(leads)
            except Exception:
                log.failure("a subscriber of leadership failed")
