"""The seam between those who want a change and the log that makes it lasting.

``propose → commit → apply``: a command is proposed at the leader, committed when it is durable
(with several members: on a quorum), then applied to the registry of each member in log order. The
proposer gets the outcome only after that. Callers know this Protocol alone; whether one member or
several stand behind it is not theirs to know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pbcluster.controlplane.commands import AnyCommand, AuditNote
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.registry import Applied, Registry
from pbcluster.records import MemberRecord


class Consensus(Protocol):
    """The replicated registry of one member."""

    @property
    def registry(self) -> Registry:
        """Applied state. To be read only."""

    @property
    def is_leader(self) -> bool:
        """Whether proposals are taken here."""

    @property
    def leader_endpoint(self) -> str:
        """Request endpoint or id of the leader, empty if unknown."""

    @property
    def votes(self) -> bool:
        """Whether this member counts: one that joins, or that left, knows what is old."""

    def members(self) -> tuple[MemberRecord, ...]:
        """Those that vote and where they are reached; none as long as one of them is unknown."""

    async def start(self) -> None:
        """Recover what is stored, then take proposals.

        :raises StorageCorrupt: what is stored fails its check; nothing is served.
        """

    async def stop(self) -> None:
        """Finish what is being written and close."""

    async def propose(
        self, command: AnyCommand, key: str = "", note: AuditNote | None = None
    ) -> Outcome:
        """Commit and apply a command.

        :param key: idempotency key: a repetition gives the first outcome and changes nothing.
        :param note: goes into the audit trail with what came of it, once.
        :returns: its outcome, never one with an error: that is raised.
        :raises NotLeader: not taken here.
        :raises Busy: too many proposals wait, or the store is nearly full; nothing was done.
        :raises PBClusterError: the registry refused it.
        """

    async def leader_known(self, timeout_s: float) -> None:
        """Wait until this member knows who leads, at most ``timeout_s`` seconds."""

    async def read_barrier(self, *, patient: bool = False) -> None:
        """When it returns, ``registry`` shows everything that was committed before the call.

        :param patient: it may take some 20 ms longer, and costs the less where many ask.
        :raises NotLeader: this member cannot say.
        """

    def subscribe(self, callback: Callable[[Applied], None]) -> None:
        """``callback`` is called after each applied command, in order, not for what was recovered
        at the start."""

    def subscribe_leadership(self, callback: Callable[[bool], None]) -> None:
        """``callback`` is called with True when ``is_leader`` becomes true after the start, with
        False when it was and is no more; what waited for an answer has it by then."""
