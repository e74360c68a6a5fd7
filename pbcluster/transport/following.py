"""Keeps the sessions of a node or gateway in step with who the control plane's members are.

Asks any member soon after the start, then every 10 s, and at once when a broadcast says that
members changed, or a member names a leader whom we do not know: who joined a moment ago may lead
already, and a node that cannot renew its lease loses its tenants after two seconds.

``membership`` says what an answer means; this module asks, waits and applies: keys are allowed
first, then sessions are opened and closed, then keys of members that are gone are revoked. What
goes wrong is logged at most once a minute and tried again at the next question.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster.config import Peer
from pbcluster.errors import ConfigError, PBClusterError
from pbcluster.records import MemberRecord
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.interfaces import ControlPlaneClient, FollowsMembers
from pbcluster.transport.member_choice import Uniform
from pbcluster.transport.membership import Membership, Usable, read_record
from pbcluster.wire import ListMembers, Members, expect

#: The first question; what the start itself needs goes first.
FIRST_S = 1.0
INTERVAL_S = 10.0
#: Intervals differ by so much, up and down, so that a cluster's processes do not ask in step.
JITTER = 0.2
#: Between two questions there is at least this, however many broadcasts come.
SHORTEST_S = 0.2
ASK_TIMEOUT_S = 3.0
#: A leader whom we do not know makes us ask at most so often.
STRANGER_S = 1.0
LOG_INTERVAL_S = 60.0


class Keys(Protocol):
    """The part of ``sockets.Sockets`` that is needed."""

    def allow(self, peer: Peer) -> None:
        """Allow a process. :raises ConfigError: its key cannot be used."""

    def revoke(self, process_id: str) -> None:
        """Allow a process no more."""

    def key_of(self, address: MemberAddress) -> str:
        """The key of a process. :raises ConfigError: it cannot be connected to."""


class FollowingClient(ControlPlaneClient, FollowsMembers, Protocol):
    """Is asked, and follows."""

    def when_leader_unknown(self, callback: Callable[[], None]) -> None:
        """Call it when a member names a leader that is none of the members."""


class Follower(Protocol):
    """What a service does with a :class:`MemberFollower`."""

    def start(self) -> None:
        """Begin to ask."""

    def stop(self) -> None:
        """Ask no more."""

    def changed(self, index: int) -> None:
        """A broadcast says that the members changed at ``index``."""


class MemberFollower:
    """See the module."""

    def __init__(
        self,
        clock: IReactorTime,
        keys: Keys,
        client: FollowingClient,
        random: Uniform,
        *,
        first: Collection[MemberAddress],
        subscriber: FollowsMembers | None = None,
        heard: Callable[[Members], None] = lambda answer: None,
    ) -> None:
        """
        :param client: is asked, and follows; somebody else starts it, before this.
        :param random: for the jitter.
        :param first: the members of the settings.
        :param subscriber: follows too; somebody else starts it, before this.
        :param heard: is told of each answer that is no older than the newest.
        """
        self._heard = heard
        self._clock = clock
        self._keys = keys
        self._client = client
        self._subscriber = subscriber
        self._random = random
        self._membership = Membership([address.member_id for address in first])
        self._log = Logger()
        self._loop: Deferred[None] | None = None
        self._pause: Deferred[None] | None = None
        self._next_warning = self._next_stranger = float("-inf")
        self._named = ""

    def start(self) -> None:
        """Begin to ask."""
        self._client.when_leader_unknown(self._leader_unknown)
        self._loop = Deferred.fromCoroutine(self._follow())
        self._loop.addErrback(
            lambda failure: (
                None
                if failure.check(CancelledError)
                else self._log.failure("members are not followed any more", failure=failure)
            )
        )

    def stop(self) -> None:
        """Ask no more."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.cancel()

    def changed(self, index: int) -> None:
        """A broadcast says that the members changed at ``index``."""
        self._membership.changed(index)
        pause = self._pause
        if pause is not None and not pause.called and self._membership.is_behind():
            pause.callback(None)

    def _leader_unknown(self) -> None:
        pause, now = self._pause, self._clock.seconds()
        if pause is not None and not pause.called and now >= self._next_stranger:
            self._next_stranger = now + STRANGER_S
            pause.callback(None)

    # -- asking --

    async def _follow(self) -> None:
        await self._wait(self._jittered(FIRST_S))
        while True:
            try:
                await self._ask()
            except CancelledError:
                raise
            except PBClusterError as error:
                self._warn(f"who the control plane's members are could not be followed: {error}")
            except Exception as error:
                # Sockets that cannot be had now, for instance: the sessions are as they were.
                self._warn(f"following the members failed: {type(error).__name__}: {error}")
            self._membership.asked()
            await self._wait(SHORTEST_S, to_the_end=True)
            if not self._membership.is_behind():
                await self._wait(self._jittered(INTERVAL_S) - SHORTEST_S)

    async def _ask(self) -> None:
        answer = await self._client.ask(ListMembers(), timeout_s=ASK_TIMEOUT_S, any_member=True)
        told = expect(answer, Members)
        if told.members and told.index >= self._membership.index:
            self._heard(told)
        records = self._membership.news(told)
        if records:
            self._apply(records)

    def _jittered(self, seconds: float) -> float:
        return seconds * self._random.uniform(1 - JITTER, 1 + JITTER)

    async def _wait(self, seconds: float, *, to_the_end: bool = False) -> None:
        """Wait, but unless ``to_the_end`` no longer than until a broadcast asks for haste."""
        pause: Deferred[None] = Deferred()
        timer = self._clock.callLater(seconds, pause.callback, None)
        self._pause = None if to_the_end else pause
        try:
            await pause
        finally:
            self._pause = None
            if timer.active():
                timer.cancel()

    def _warn(self, line: str) -> None:
        now = self._clock.seconds()
        if now >= self._next_warning:
            self._next_warning = now + LOG_INTERVAL_S
            self._log.warn("{line}", line=line)

    # -- applying --

    def _apply(self, records: Sequence[MemberRecord]) -> None:
        """Talk to the members of ``records``.

        :raises ConfigError: with none of them one can; everything stays as it is.
        """
        usable, reasons = self._usable(records)
        if not usable:
            raise ConfigError(f"no member's record can be used: {'; '.join(reasons)}")
        if reasons:
            self._warn(f"left out of the members: {'; '.join(reasons)}")
        self._client.set_members([each.requests for each in usable])
        if self._subscriber is not None:
            self._subscriber.set_members([each.broadcasts for each in usable])
        for member_id in self._membership.gone(records):
            self._keys.revoke(member_id)
        self._membership.used(records, all_of_them=not reasons)
        names = ", ".join(each.peer.id for each in usable)
        if names != self._named:
            self._named = names
            self._log.info("the control plane's members are {names}", names=names)

    def _usable(self, records: Sequence[MemberRecord]) -> tuple[list[Usable], list[str]]:
        """Those that can be connected to, their keys allowed; and why the others cannot."""
        usable, reasons = [], []
        for record in records:
            try:
                each = read_record(record)
                if each.peer.curve_public:
                    self._keys.allow(each.peer)
                self._keys.key_of(each.requests)
                if self._subscriber is not None:
                    self._keys.key_of(each.broadcasts)
            except ConfigError as error:
                reasons.append(f"{record.id[:63]}: {error.message}")
            else:
                usable.append(each)
        return usable, reasons
