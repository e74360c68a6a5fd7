"""This node's standing with the control plane: registration, leases, heartbeats, orders.

* Registers with one ``start_id`` until it is answered, so that a lost answer gives no second
  incarnation, and again whenever it is told that its incarnation is unknown or old.
* Sends a lease each 0.4 s and never waits for the one before, and one more when it had to refuse
  changes of its list. The moment of sending is taken before the question leaves; a proof is aged
  from it.
* A list of assignments, wherever it comes along, is obeyed before the acknowledgement that it came
  with can count.
* Heartbeats each 5 s carry what operators see. Ownership does not depend on them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from pbcluster import __version__
from pbcluster.errors import (
    Forbidden,
    NoCapacity,
    NotFound,
    PBClusterError,
    RemoteProtocolError,
    Unavailable,
    WrongEpoch,
)
from pbcluster.node.parts import pause, spawn
from pbcluster.node.proofs import Proofs
from pbcluster.records import NodeResources, NodeStatus
from pbcluster.transport.interfaces import Asked, ControlPlaneClient
from pbcluster.wire import (
    AssignmentChanges,
    Body,
    FindTenant,
    Heartbeat,
    Lease,
    LeaseAck,
    NodeAssignments,
    NodeCapacity,
    Ok,
    Probe,
    Registered,
    RegisterNode,
    TenantFound,
    TenantUsage,
    expect,
)

log = Logger()

HEARTBEAT_INTERVAL_S = 5.0
REGISTER_TIMEOUT_S = 3.0
REGISTER_RETRY_S = 0.3
REGISTER_RETRY_MAX_S = 3.0
#: Leases that may be unanswered at once: older ones could prove nothing any more.
MAX_LEASES_IN_FLIGHT = 4


@attrs.frozen(kw_only=True)
class NodeFacts:
    """What a node says of itself when it registers.

    :ivar start_id: random for each start of the process. :ivar address: base URL of its front door.
    """

    node_id: str
    start_id: str
    address: str
    capacity: int
    region: str = ""
    zone: str = ""


@attrs.frozen(kw_only=True)
class Condition:
    """What a heartbeat carries of the whole node."""

    status: NodeStatus
    active: int
    cached: int
    hits: int
    misses: int
    evictions: int
    resources: NodeResources
    tenants: tuple[TenantUsage, ...]


class Owned(Protocol):
    """Who obeys (``tenants.Tenants``)."""

    @property
    def obeyed_index(self) -> int:
        """Index of the list obeyed."""

    def registered(self, incarnation: int) -> None:
        """This process's incarnation."""

    def obey(self, told: NodeAssignments | AssignmentChanges) -> bool:
        """Take a list over, or changes to the one obeyed. :returns: False if they are refused."""


class Standing:
    """See the module.

    :ivar incarnation: 0 until registered. :ivar gaps: how often this process was away so long that
        a lease ran out.
    """

    def __init__(
        self,
        facts: NodeFacts,
        *,
        clock: IReactorTime,
        boottime: Callable[[], float],
        utc_now: Callable[[], datetime],
        client: ControlPlaneClient,
        proofs: Proofs,
        owned: Owned,
        condition: Callable[[], Condition],
        new_key: Callable[[], str],
        members_changed: Callable[[int], None] = lambda index: None,
        handlers: Mapping[type, Callable[[Asked, Any], Awaitable[Body]]] | None = None,
        found: Callable[[str], tuple[int, str]] = lambda tenant_id: (0, ""),
        removed: Callable[[str], None] = lambda why: None,
    ) -> None:
        """
        :param handlers: further kinds of questions → what answers them.
        :param found: tenant id → epoch (0: nothing of it runs here) and state.
        :param removed: called when the control plane says that this node may not come (back); with
            its words.
        :param members_changed: told at which log index the control plane's members changed last.
        """
        self.incarnation = 0
        self._members_changed = members_changed
        self._removed = removed
        self._handlers = handlers or {}
        self._found = found
        self.gaps = 0
        self._facts = facts
        self._clock = clock
        self._boottime = boottime
        self._utc_now = utc_now
        self._client = client
        self._proofs = proofs
        self._owned = owned
        self._condition = condition
        self._new_key = new_key
        self._leases_in_flight = 0
        self._asking_for_list = False
        self._registering = False
        self._stopped = False
        self._loops: list[Deferred[None]] = []
        self._last_tick = boottime()
        self._registered_at = 0.0

    async def start(self) -> None:
        """Register; returns when that worked. From then on leases and heartbeats go out."""
        await self._register()
        if not self._stopped:
            self._loops = [
                spawn(self._leases(), "lease renewal"),
                spawn(self._heartbeats(), "heartbeats"),
            ]

    def stop(self) -> None:
        """Send nothing any more."""
        self._stopped = True
        for loop in self._loops:
            loop.cancel()

    async def announce_draining(self) -> None:
        """Tell the control plane that this node ends; not being heard is no reason to wait."""
        if not self.incarnation:
            return
        draining = NodeCapacity(
            self._facts.node_id, self.incarnation, self._facts.capacity, draining=True
        )
        try:
            await self._client.ask(draining, timeout_s=1.0, idempotency_key=self._new_key())
        except PBClusterError as error:
            log.warn("the control plane was not told of the drain: {error}", error=error)

    async def announce_leaving(self) -> bool:
        """Tell the control plane that this node is being stopped, so that its tenants move.

        :returns: False: no other node can take any.
        """
        leaving = NodeCapacity(
            self._facts.node_id,
            self.incarnation,
            self._facts.capacity,
            draining=True,
            leaving=True,
        )
        try:
            await self._client.ask(leaving, timeout_s=1.0, idempotency_key=self._new_key())
        except NoCapacity:
            return False
        except PBClusterError as error:
            log.info("the control plane was not told that this node leaves: {e}", e=error)
        return True

    async def handle(self, asked: Asked, body: Body) -> Body:
        """Answer what a member asks or tells."""
        if isinstance(body, Probe):
            if body.incarnation != self.incarnation:
                # Another start of this node is asked for; to answer for it would keep it alive.
                raise WrongEpoch(f"this is incarnation {self.incarnation}")
            return Ok()
        if isinstance(body, NodeAssignments | AssignmentChanges):
            if not self._owned.obey(body) and body.index > self._owned.obeyed_index:
                self._ask_for_list(body.incarnation)
            return Ok()
        handler = self._handlers.get(type(body))
        if handler is not None:
            return await handler(asked, body)
        if isinstance(body, FindTenant):
            epoch, state = self._found(body.tenant_id)
            index = self._owned.obeyed_index
            return TenantFound(self._facts.node_id, self.incarnation, epoch, state, index)
        raise RemoteProtocolError(f"a node does not understand {type(body).__name__}")

    # -- registration --

    async def _register(self) -> None:
        if self._registering:
            return
        self._registering = True
        facts, delay_s = self._facts, REGISTER_RETRY_S
        question = RegisterNode(
            node_id=facts.node_id,
            start_id=facts.start_id,
            address=facts.address,
            capacity=facts.capacity,
            region=facts.region,
            zone=facts.zone,
            software_version=__version__,
        )
        key = self._new_key()
        try:
            while not self._stopped:
                try:
                    answer = await self._client.ask(
                        question, timeout_s=REGISTER_TIMEOUT_S, idempotency_key=key
                    )
                    self._registered(expect(answer, Registered))
                    return
                except Forbidden as error:
                    self._stopped = True
                    self._removed(str(error))
                    return
                except PBClusterError as error:
                    log.warn("registration is repeated: {error}", error=error)
                    if not isinstance(error, Unavailable):
                        key = self._new_key()
                await pause(self._clock, delay_s)
                delay_s = min(2 * delay_s, REGISTER_RETRY_MAX_S)
        finally:
            self._registering = False

    def _registered(self, answer: Registered) -> None:
        if answer.incarnation != self.incarnation:
            self._proofs.drop_leases(self._boottime())
        self.incarnation = answer.incarnation
        self._registered_at = self._clock.seconds()
        self._owned.registered(answer.incarnation)
        self._owned.obey(answer.assignments)
        log.info(
            "registered as {node}, incarnation {incarnation}, {count} tenants",
            node=self._facts.node_id,
            incarnation=answer.incarnation,
            count=len(answer.assignments.assignments),
        )

    async def _told_off(self, why: str, incarnation: int) -> None:
        """The control plane does not know this incarnation."""
        recent = self._clock.seconds() - self._registered_at < REGISTER_RETRY_S
        if incarnation == self.incarnation and not (self._stopped or recent):
            log.warn("the control plane does not know this node: {why}", why=why)
            await self._register()

    # -- leases --

    async def _leases(self) -> None:
        self._last_tick = self._boottime()
        while not self._stopped:
            now = self._boottime()
            if now - self._last_tick > self._proofs.durations.lease_proof_s:
                self.gaps += 1
                log.warn(
                    "this process was away for {away:.1f} s: its leases ran out",
                    away=now - self._last_tick,
                )
            self._last_tick = now
            if self._leases_in_flight < MAX_LEASES_IN_FLIGHT:
                self._leases_in_flight += 1
                spawn(self._renew(), "a lease").addBoth(self._renewed)
            await pause(self._clock, self._proofs.durations.lease_interval_s)

    def _ask_for_list(self, incarnation: int) -> None:
        """Something newer was refused: the answer to a lease brings the whole list.

        One such question at a time, beside those that go out regularly: a burst of changes must not
        take their places, or all proofs would be of one moment.
        """
        if incarnation == self.incarnation and not (self._asking_for_list or self._stopped):
            self._asking_for_list = True
            spawn(self._renew(), "a lease").addBoth(self._asked_for_list)

    def _renewed(self, result: object) -> None:
        self._leases_in_flight -= 1

    def _asked_for_list(self, result: object) -> None:
        self._asking_for_list = False

    async def _renew(self) -> None:
        incarnation = self.incarnation
        sent = self._boottime()
        question = Lease(self._facts.node_id, incarnation, self._owned.obeyed_index)
        try:
            answer = await self._client.ask(
                question, timeout_s=self._proofs.durations.lease_proof_s
            )
            self._acked(sent, incarnation, expect(answer, LeaseAck))
        except (NotFound, WrongEpoch, Forbidden) as error:
            await self._told_off(str(error), incarnation)
        except PBClusterError as error:
            log.debug("lease without an answer: {error}", error=error)

    def _acked(self, sent: float, incarnation: int, ack: LeaseAck) -> None:
        if incarnation != self.incarnation or self._stopped:
            return
        if not ack.granted:
            spawn(self._told_off("a lease was not granted", incarnation), "registration")
        self._members_changed(ack.members_index)
        if ack.assignments is not None:
            self._owned.obey(ack.assignments)
        self._proofs.lease_acked(
            sent, granted=ack.granted, index=ack.assignments_index, not_covered=ack.not_covered
        )

    # -- heartbeats --

    async def _heartbeats(self) -> None:
        while not self._stopped:
            spawn(self._beat(), "a heartbeat")
            await pause(self._clock, HEARTBEAT_INTERVAL_S)

    async def _beat(self) -> None:
        incarnation, condition = self.incarnation, self._condition()
        beat = Heartbeat(
            node_id=self._facts.node_id,
            incarnation=incarnation,
            timestamp=self._utc_now(),
            status=condition.status.value,
            max_tenants=self._facts.capacity,
            active_tenants=condition.active,
            cached_tenants=condition.cached,
            resources=condition.resources,
            tenants=condition.tenants,
            hits=condition.hits,
            misses=condition.misses,
            evictions=condition.evictions,
        )
        try:
            await self._client.ask(beat, timeout_s=HEARTBEAT_INTERVAL_S)
        except (NotFound, WrongEpoch, Forbidden) as error:
            await self._told_off(str(error), incarnation)
        except PBClusterError as error:
            log.debug("heartbeat without an answer: {error}", error=error)
