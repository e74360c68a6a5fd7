"""The names of the properties, and what it means that one is broken."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

PROPERTIES = {
    "election_safety": "at most one leader a term, elected by majorities of voters alone",
    "leader_append_only": "a leader never changes or cuts its own log",
    "log_matching": "same index and term: same entry, and same log before it",
    "leader_completeness": "a leader's log holds everything that was ever committed",
    "state_machine_safety": "the same entry is applied at an index everywhere, in order, once",
    "state_equality": "same index, same state; snapshot and tail equal a full replay",
    "monotonic_terms": "terms and votes never regress, not even across crashes",
    "durable_before_told": "no vote, candidacy, acknowledgement or compaction before its bytes are",
    "truncation": "a log is cut only where it conflicts, and never at or below commit",
    "commit_own_term": "only an entry of the leader's own term is committed by counting",
    "commit_quorum": "what is committed is durable at a majority of voters, of both if joint",
    "one_change": "at most one membership change is uncommitted",
    "exactly_once": "a command is executed once, however often it was sent",
    "acknowledged_kept": "an answer is the outcome of the committed and applied command",
    "fresh_reads": "a read sees everything that was acknowledged before it began",
    "linearizable": "all operations fit one order",
    "no_disturbance": "a member that was cut off and returns raises no term",
    "gap_stops_leader": "missed time is told before messages; who slept too long leads no more",
    "bounded": "queues and uncommitted bytes stay within their bounds",
    "leavers_end": "who left the group learns it, also late, and its process ends",
    "liveness": "leader and progress within ten election timeouts after healing",
    "restartable": "after each transaction a member could start from what is on its disk",
    "no_crash": "no member ends by an error of its own",
}


class Broken(AssertionError):
    """A property does not hold."""

    def __init__(self, name: str, text: str) -> None:
        assert name in PROPERTIES, name
        super().__init__(f"{name}: {text}")
        self.name = name


F = TypeVar("F", bound=Callable[..., Any])


def remembered(check: F) -> F:
    """A check whose caller may be production code, which handles errors in its own way."""

    @wraps(check)
    def wrapper(self: Any, *args: Any) -> None:
        try:
            check(self, *args)
        except Broken as broken:
            self.world.found = self.world.found or broken
            raise

    return wrapper  # type: ignore[return-value]
