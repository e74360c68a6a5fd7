"""Carries decisions out: from the planner's effects to proposals, pushes, probes and broadcasts.

It decides nothing. Several times a second, and at once after every applied command that may matter,
it asks the planner for effects; each one that ends is reported back to the planner, so that what
failed is tried again. After each applied command it tells the nodes whose list changed and
publishes the command's broadcast, if it is the leader. Telling is a hint: a node that missed it
gets the list with its next lease.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from pbcluster import wire
from pbcluster.controlplane import audit
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.consensus import Consensus
from pbcluster.controlplane.liveness import Liveness, ProbeNode
from pbcluster.controlplane.node_lists import NodeLists
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.planner import Assign, Effect, Planner, SetStatus
from pbcluster.controlplane.registry import Applied
from pbcluster.durations import Durations
from pbcluster.errors import DeadlineExceeded, PBClusterError
from pbcluster.transport.interfaces import Publisher, RequestServer

#: The planner is asked so often. Much shorter than any duration it works with.
TICK_S = 0.1

log = Logger()


def utc_now() -> datetime:
    """The clock of proposals."""
    return datetime.now(UTC)


def random_id() -> int:
    """An id of a list of assignments."""
    return random.getrandbits(62) + 1


class Executor:
    """The leader's hands.

    :ivar lists: what nodes were told to own.
    """

    def __init__(
        self,
        clock: IReactorTime,
        consensus: Consensus,
        liveness: Liveness,
        planner: Planner,
        server: RequestServer,
        publisher: Publisher,
        durations: Durations,
        wall_clock: Callable[[], datetime] = utc_now,
        new_list_id: Callable[[], int] = random_id,
    ) -> None:
        self._clock = clock
        self._consensus = consensus
        self._liveness = liveness
        self._planner = planner
        self._server = server
        self._publisher = publisher
        self._durations = durations
        self._wall_clock = wall_clock
        self._loop = LoopingCall(self.tick)
        self._loop.clock = clock
        self._storm = False
        self.lists = NodeLists(lambda: consensus.registry, new_list_id)

    def start(self) -> None:
        """Begin; the consensus must have started."""
        self._consensus.subscribe(self._applied)
        self._consensus.subscribe_leadership(self._leadership)
        if self._consensus.is_leader:
            self._announce()
        self._loop.start(TICK_S, now=True).addErrback(
            lambda failure: log.failure("the planner's loop ended", failure)
        )

    def _announce(self) -> None:
        """Who missed what was committed but not published before a crash learns of it now."""
        last = self._consensus.registry.last_broadcast
        self._publisher.publish(wire.Broadcast(wire.BEACON, last, last))

    def _leadership(self, leads: bool) -> None:
        """What was known of the nodes is another leadership's: begin anew, with a whole margin."""
        now = self._clock.seconds()
        self._liveness.reset(now)
        self._planner.reset()
        self.lists.clear()
        self._storm = False
        if leads:
            # Until it is proven wrong, every node lives: else the first questions would find none.
            for node in self._consensus.registry.nodes():
                self._liveness.known(node.id, node.incarnation, now)
            self._announce()
        else:
            self._publisher.silence()

    def stop(self) -> None:
        """End; what is under way ends by its own deadline."""
        if self._loop.running:
            self._loop.stop()

    # -- from the planner to the world --

    def tick(self) -> None:
        """One round of planning."""
        if not self._consensus.is_leader:
            return
        try:
            effects = self._planner.tick(self._clock.seconds(), self._wall_clock())
        except Exception:
            # A loop that ends for one bad record would leave every other tenant alone.
            log.failure("planning failed")
            return
        for effect in effects:
            self._run(self._carry_out(effect))
        self._tell_storm()

    def _tell_storm(self) -> None:
        storm = self._planner.storm()
        if storm != self._storm:
            self._storm = storm
            suspected = ", ".join(self._liveness.suspected())
            if storm:
                log.critical(
                    "too many nodes do not answer ({suspected}): nothing is moved in the "
                    "background until fewer are silent",
                    suspected=suspected,
                )
            else:
                log.info("enough nodes answer again: moving tenants in the background goes on")

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(work).addErrback(lambda failure: log.failure("failed", failure))

    async def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, ProbeNode):
            await self.probe(effect)
        elif isinstance(effect, Assign):
            try:
                await self.assign(effect)
            except PBClusterError as error:
                log.warn(
                    "tenant {tenant} was not assigned to {node}: {error}",
                    tenant=effect.tenant_id,
                    node=effect.node_id,
                    error=error.message,
                )
        else:
            await self._set_status(effect)

    async def probe(self, effect: ProbeNode) -> None:
        """Ask a node whether it is there; silence is the liveness core's to judge."""
        if self._consensus.registry.node(effect.node_id).removed:
            return  # whatever it says, it counts no more
        timeout_s = self._durations.probe_timeout_s
        try:
            probe = wire.Probe(effect.incarnation)
            wire.expect(await self._server.ask(effect.node_id, probe, timeout_s=timeout_s), wire.Ok)
        except PBClusterError as error:
            log.info("probe of {node}: {error}", node=effect.node_id, error=error.message)
            return
        self._liveness.heard(effect.node_id, effect.incarnation, self._clock.seconds())

    async def ask_node(self, node_id: str, body: wire.Body, *, timeout_s: float) -> wire.Body:
        """Ask a node something for an operator.

        :raises PBClusterError: what the node answered. :raises DeadlineExceeded: nothing in time.
        """
        return await self._server.ask(node_id, body, timeout_s=timeout_s)

    async def assign(self, effect: Assign) -> Outcome:
        """Propose an assignment.

        An asker that goes away while this waits cancels its waiting only: from the decision to its
        end the loser's acknowledgements must leave the tenant out, whoever asked.

        :raises PBClusterError: it was refused or not committed.
        """
        waiting: Deferred[Outcome] = Deferred()
        work = Deferred.fromCoroutine(self._assign(effect))
        work.addCallbacks(waiting.callback, waiting.errback)
        return await waiting

    async def _assign(self, effect: Assign) -> Outcome:
        command = c.AssignTenant(
            self._wall_clock(),
            effect.tenant_id,
            effect.node_id,
            effect.expected_epoch,
            effect.above_epoch,
            effect.keeps_data,
        )
        failed = True
        try:
            outcome = await self._proposed(command, _note_of(effect))
            failed = False
        finally:
            self._planner.assigned(effect.tenant_id, self._clock.seconds(), failed=failed)
        log.info(
            "tenant {tenant} goes to {node} under epoch {epoch}: {reason}",
            tenant=effect.tenant_id,
            node=effect.node_id,
            epoch=outcome.epoch,
            reason=effect.reason,
        )
        return outcome

    async def _proposed(self, command: c.AssignTenant, note: c.AuditNote | None) -> Outcome:
        """Propose until the answer is known, as long as this member leads.

        While it is unknown whether the tenant was taken away, the loser's acknowledgements must
        leave it out: the entry may still be committed. Proposing it again is harmless: the second
        one finds another epoch than it expects. A member that leads no more acknowledges nothing.
        """
        while True:
            try:
                return await self._consensus.propose(command, "", note)
            except DeadlineExceeded:
                if not self._consensus.is_leader:
                    raise

    async def _set_status(self, effect: SetStatus) -> None:
        command = c.SetNodeStatus(
            self._wall_clock(), effect.node_id, effect.incarnation, effect.status
        )
        try:
            told = f"it is {effect.status.value}"
            await self._consensus.propose(
                command, "", audit.by_itself("node.status", effect.node_id, told)
            )
            log.info("node {n} is {s}", n=effect.node_id, s=effect.status.value)
        except PBClusterError as error:
            log.warn("status of node {n}: {e}", n=effect.node_id, e=error.message)
        finally:
            self._planner.status_set(effect.node_id)

    # -- from the log to the world --

    def _applied(self, applied: Applied) -> None:
        if not self._consensus.is_leader:
            return
        if applied.broadcast is not None:
            self._publisher.publish(applied.broadcast)
        for node_id in applied.changed_nodes:
            self.tell_assignments(node_id)

    def tell_assignments(self, node_id: str, *, whole: bool = False) -> None:
        """Send a node what changed in its list, or the ``whole``; a hint that may get lost."""
        try:
            news = self.lists.whole(node_id) if whole else self.lists.news(node_id)
            if not self._server.tell(node_id, news):
                self.lists.forget(node_id)
        except PBClusterError as error:
            self.lists.forget(node_id)
            log.error("{node} cannot be told its tenants: {e}", node=node_id, e=error.message)

    async def survey(
        self, body: wire.Body, *, timeout_s: float, among: Callable[[str], bool]
    ) -> dict[str, list[wire.Body]]:
        """Ask all processes that have a session here, as ``RequestServer.survey``."""
        return await self._server.survey(body, timeout_s=timeout_s, among=among)


def _note_of(effect: Assign) -> c.AuditNote | None:
    """The first placement is a part of the creation, which has its entry."""
    if not effect.expected_epoch:
        return None
    told = f"to {effect.node_id}: {effect.reason}"
    return audit.by_itself("tenant.assign", effect.tenant_id, told)
