"""The transport without sockets, on a ``task.Clock``: for unit tests of everything above it.

The rules (who is asked next, what is a gap, what is refused) are those of the real transport: the
same code runs, only the wire is a list of delayed calls. Every message is really encoded and
decoded. Nothing is delivered before the clock moves: ``network.settle()`` (or ``clock.advance``)
delivers what is due, in the order it was sent, and whatever follows from it at once.

    clock = task.Clock()
    network = MemoryNetwork(clock)
    server = network.server("member_1")
    server.start(handler)
    client = network.client("node_a")
    client.start(client_handler)
    network.settle()                       # sessions are open now
    asked = Deferred.fromCoroutine(client.ask(body, timeout_s=1.0))
    network.settle()

Faults are set on ``network.faults`` or by ``cut``/``heal``; the random is seeded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

import attrs
from twisted.internet.task import Clock

from pbcluster.errors import ConfigError
from pbcluster.transport.addresses import MemberAddress
from pbcluster.transport.announcing import Announcer, Listener
from pbcluster.transport.answering import MAX_RUNNING
from pbcluster.transport.asking import AskingSide
from pbcluster.transport.interfaces import Handler
from pbcluster.transport.serving import ServingSide, session_name
from pbcluster.wire import Body, Broadcast

#: Frames under way at once; what does not fit is lost, as in a full socket.
MAX_UNDER_WAY = 10_000


@attrs.define
class Faults:
    """What happens to frames.

    :ivar delay_s: every frame takes so long.
    :ivar jitter_s: and up to this much longer: frames may overtake each other.
    :ivar drop: share of frames lost, 0 to 1.
    :ivar duplicate: share of frames that arrive twice, 0 to 1.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    drop: float = 0.0
    duplicate: float = 0.0


class MemoryNetwork:
    """Connects members, nodes and gateways of one process.

    :ivar faults: for all frames from now on.
    :ivar counts: frames ``sent``, ``dropped``, ``duplicated``, ``delivered``.
    """

    def __init__(
        self, clock: Clock, *, cluster_id: str = "memory", random: Random | None = None
    ) -> None:
        self.clock = clock
        self.cluster_id = cluster_id
        self.random = random if random is not None else Random(0)
        self.faults = Faults()
        self.counts: Counter[str] = Counter()
        self.servers: dict[str, MemoryRequestServer] = {}
        self.clients: dict[bytes, MemoryControlPlaneClient] = {}
        self.subscribers: list[MemorySubscriber] = []
        self._cuts: set[tuple[str, str]] = set()
        self._under_way = 0

    # -- parts ------------------------------------------------------------------------------------

    def server(self, member_id: str, *, max_running: int = MAX_RUNNING) -> MemoryRequestServer:
        """The request server of a member; its endpoint is ``memory://MEMBER_ID``."""
        self.servers[member_id] = MemoryRequestServer(self, member_id, max_running)
        return self.servers[member_id]

    def client(self, process_id: str, *, role: str = "") -> MemoryControlPlaneClient:
        """The client of a node or gateway: of all members that have a server when it starts.

        :param role: what servers see as ``Asked.role``.
        """
        return MemoryControlPlaneClient(self, process_id, role)

    def publisher(self, member_id: str) -> MemoryPublisher:
        """The broadcasts of a member."""
        return MemoryPublisher(self, member_id)

    def subscriber(self, process_id: str) -> MemorySubscriber:
        """Who listens to all publishers."""
        return MemorySubscriber(self, process_id)

    # -- time and faults --------------------------------------------------------------------------

    def settle(self) -> None:
        """Deliver what is due now and whatever follows from it, without moving the clock."""
        self.clock.advance(0)

    def cut(self, one: str, other: str, *, both_ways: bool = True) -> None:
        """Lose every frame from process ``one`` to ``other`` (and back), silently."""
        self._cuts.add((one, other))
        if both_ways:
            self._cuts.add((other, one))

    def partition(self, *groups: Sequence[str]) -> None:
        """Cut every process of a group off from those of the other groups."""
        for number, group in enumerate(groups):
            for other in groups[number + 1 :]:
                for one in group:
                    for far in other:
                        self.cut(one, far)

    def heal(self) -> None:
        """End all cuts and faults."""
        self._cuts.clear()
        self.faults = Faults()

    def carry(self, sender: str, receiver: str, deliver: Callable[[], None]) -> None:
        """Bring one frame over, or not."""
        self.counts["sent"] += 1
        copies = 1 + (self.random.random() < self.faults.duplicate)
        self.counts["duplicated"] += copies - 1
        for _ in range(copies):
            lost = self.random.random() < self.faults.drop
            if lost or (sender, receiver) in self._cuts or self._under_way >= MAX_UNDER_WAY:
                self.counts["dropped"] += 1
                continue
            delay_s = self.faults.delay_s + self.random.random() * self.faults.jitter_s
            self._under_way += 1
            self.clock.callLater(delay_s, self._deliver, deliver)

    def _deliver(self, deliver: Callable[[], None]) -> None:
        self._under_way -= 1
        self.counts["delivered"] += 1
        deliver()


class MemoryRequestServer:
    """A :class:`RequestServer`; may be stopped and started again (a member's restart)."""

    def __init__(self, network: MemoryNetwork, member_id: str, max_running: int) -> None:
        self._network = network
        self.member_id = member_id
        self.is_running = False
        self.side = ServingSide(
            network.clock, network.cluster_id, member_id, self._send, max_running=max_running
        )

    @property
    def endpoint(self) -> str:
        """As :attr:`RequestServer.endpoint`."""
        return f"memory://{self.member_id}"

    def start(self, handler: Handler) -> None:
        """As :meth:`RequestServer.start`."""
        self.is_running = True
        self.side.start(handler)
        for client in list(self._network.clients.values()):
            client.member_came(self.member_id)

    async def ask(self, peer: str, body: Body, *, timeout_s: float) -> Body:
        """As :meth:`RequestServer.ask`."""
        return await self.side.ask(peer, body, timeout_s=timeout_s)

    async def survey(
        self, body: Body, *, timeout_s: float, among: Callable[[str], bool]
    ) -> dict[str, list[Body]]:
        """As :meth:`RequestServer.survey`."""
        return await self.side.survey(body, timeout_s=timeout_s, among=among)

    def tell(self, peer: str, body: Body) -> bool:
        """As :meth:`RequestServer.tell`."""
        return self.side.tell(peer, body)

    def stop(self) -> None:
        """As :meth:`RequestServer.stop`."""
        self.is_running = False
        self.side.stop()
        for client in list(self._network.clients.values()):
            client.member_went(self.member_id)

    def counts(self) -> dict[str, int]:
        """Counters for metrics, by name."""
        return self.side.counts()

    def _send(self, session: bytes, frame: bytes) -> bool:
        client = self._network.clients.get(session)
        if client is None or not self.is_running:
            return False

        def deliver() -> None:
            client.arrived(self.member_id, frame)

        self._network.carry(self.member_id, client.process_id, deliver)
        return True


class MemoryControlPlaneClient:
    """A :class:`ControlPlaneClient`."""

    def __init__(self, network: MemoryNetwork, process_id: str, role: str) -> None:
        self._network = network
        self.process_id = process_id
        self._role = role
        #: Member → its number; those that left are in the second only.
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._session = b""
        self._side: AskingSide | None = None

    def start(self, handler: Handler) -> None:
        """As :meth:`ControlPlaneClient.start`."""
        network = self._network
        self._names = dict(enumerate(network.servers))
        self._numbers = {member: number for number, member in self._names.items()}
        token = f"{network.random.getrandbits(64):016x}"
        self._session = session_name(self.process_id, token)
        names = [(f"memory://{member}", member) for member in self._numbers]
        self._side = AskingSide(
            network.clock, network.cluster_id, self.process_id, names, self._send, network.random
        )
        network.clients[self._session] = self
        self._side.start(handler)
        for member in self._numbers:
            if network.servers[member].is_running:
                self.member_came(member)

    def when_leader_unknown(self, callback: Callable[[], None]) -> None:
        """As ``ZmqControlPlaneClient.when_leader_unknown``."""
        assert self._side is not None, "start() comes first"
        self._side.leader_unknown = callback

    def set_members(self, members: Sequence[MemberAddress]) -> None:
        """As :meth:`ControlPlaneClient.set_members`; only ids count here."""
        assert self._side is not None, "start() comes first"
        if not members:
            raise ConfigError("no member is left to talk to: the former ones stay")
        wanted = [address.member_id for address in members]
        for member in wanted:
            if member not in self._numbers:
                number = self._side.add_member((f"memory://{member}", member))
                self._numbers[member], self._names[number] = number, member
                if self._network.servers[member].is_running:
                    self.member_came(member)
        gone = [member for member in self._numbers if member not in wanted]
        self._side.remove_members([self._numbers.pop(member) for member in gone])

    async def ask(
        self, body: Body, *, timeout_s: float, idempotency_key: str = "", any_member: bool = False
    ) -> Body:
        """As :meth:`ControlPlaneClient.ask`."""
        assert self._side is not None, "start() comes first"
        return await self._side.ask(
            body, timeout_s=timeout_s, idempotency_key=idempotency_key, any_member=any_member
        )

    def stop(self) -> None:
        """As :meth:`ControlPlaneClient.stop`."""
        self._network.clients.pop(self._session, None)
        if self._side is not None:
            self._side.stop()

    def counts(self) -> dict[str, int]:
        """Counters for metrics, by name."""
        return {} if self._side is None else self._side.counts()

    def member_came(self, member_id: str) -> None:
        """The network's side: a member's server was started."""
        if self._side is not None and member_id in self._numbers:
            self._side.reachable(self._numbers[member_id], True)

    def member_went(self, member_id: str) -> None:
        """The network's side: a member's server was stopped (its sockets closed)."""
        if self._side is not None and member_id in self._numbers:
            self._side.reachable(self._numbers[member_id], False)

    def arrived(self, member_id: str, frame: bytes) -> None:
        """The network's side: a frame from a member."""
        connected = self._session in self._network.clients and member_id in self._numbers
        if connected and self._side is not None:
            self._side.frame(self._numbers[member_id], (frame,), member_id)

    def _send(self, member: int, frame: bytes) -> bool:
        server = self._network.servers[self._names[member]]
        if self._numbers.get(server.member_id) != member or not server.is_running:
            return False
        if self._session not in self._network.clients:
            return False
        session, process_id, role = self._session, self.process_id, self._role

        def deliver() -> None:
            if server.is_running:
                server.side.frame(session, (frame,), process_id, role)

        self._network.carry(process_id, server.member_id, deliver)
        return True


class MemoryPublisher:
    """A :class:`Publisher`."""

    def __init__(self, network: MemoryNetwork, member_id: str) -> None:
        self._network = network
        self.member_id = member_id
        self._announcer = Announcer(network.clock, network.cluster_id, member_id, self._send)

    @property
    def endpoint(self) -> str:
        """As :attr:`Publisher.endpoint`."""
        return f"memory://{self.member_id}/broadcasts"

    def start(self) -> None:
        """As :meth:`Publisher.start`."""
        self._announcer.start()

    def publish(self, broadcast: Broadcast) -> None:
        """As :meth:`Publisher.publish`."""
        self._announcer.publish(broadcast)

    def silence(self) -> None:
        """As :meth:`Publisher.silence`."""
        self._announcer.silence()

    def stop(self) -> None:
        """As :meth:`Publisher.stop`."""
        self._announcer.stop()

    def _send(self, frame: bytes) -> None:
        for subscriber in list(self._network.subscribers):
            self._network.carry(
                self.member_id, subscriber.process_id, subscriber.arrival(self.member_id, frame)
            )


class MemorySubscriber:
    """A :class:`Subscriber`."""

    def __init__(self, network: MemoryNetwork, process_id: str) -> None:
        self._network = network
        self.process_id = process_id
        self._listener = Listener(network.clock, network.cluster_id)

    def start(self, received: Callable[[Broadcast], None], gap: Callable[[int], None]) -> None:
        """As :meth:`Subscriber.start`."""
        self._listener.start(received, gap)
        self._network.subscribers.append(self)

    def stop(self) -> None:
        """As :meth:`Subscriber.stop`."""
        self._listener.stop()
        if self in self._network.subscribers:
            self._network.subscribers.remove(self)

    def counts(self) -> dict[str, int]:
        """Counters for metrics, by name."""
        return self._listener.counts()

    def arrival(self, member_id: str, frame: bytes) -> Callable[[], None]:
        """The network's side: what delivers ``frame`` of ``member_id`` here."""

        def deliver() -> None:
            self._listener.frame((frame,), member_id)

        return deliver
