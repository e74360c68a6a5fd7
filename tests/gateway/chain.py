"""Gateway and node in a row, in memory: real cores, proxy and front door; fakes around them.

client ── gateway's core, Proxy ── node's core, Front ── stand-in for PocketBase
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.front import Front
from pbcluster.node.ports import LIMITS as NODE_LIMITS
from pbcluster.node.streams import Streams
from pbcluster.testing.http_memory import OK, Core, StandIn
from pbcluster.testing.http_reference import Message
from pbcluster.testing.http_wire import Far, Wire
from pbcluster.testing.node_fakes.s3 import FakeS3
from tests.gateway.fakes import KEY, World, route
from tests.node.harness import NodeHarness, T, assignment

HOST = "a.localhost"
#: What gateway and core add to a request on its way to PocketBase, in lower case.
ADDED = frozenset(
    (
        b"traceparent",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
        b"x-request-id",
    )
)
PEER = b"192.0.2.1"


class _Relay(Far):
    """The gateway's upstream connection: what it hears, a client of the node says."""

    def __init__(self, wire: Wire, protocol: Any, node: Core, answers: bool = True) -> None:
        super().__init__(wire, protocol)
        self.client = _Back(node.wire, node, self)

    def heard(self, data: bytes) -> None:
        super().heard(data)
        self.client.send(data)

    def over(self, how: str) -> None:
        super().over(how)
        if how == "aborted":
            self.client.reset()
        else:
            self.client.close()


class _Back(Far):
    """The node's client: what it hears, the gateway's upstream says."""

    def __init__(self, wire: Wire, node: Core, relay: _Relay) -> None:
        protocol = node.factory.buildProtocol(None)
        super().__init__(wire, protocol)
        self.relay = relay
        protocol.makeConnection(self.near)

    def heard(self, data: bytes) -> None:
        super().heard(data)
        self.relay.send(data)

    def over(self, how: str) -> None:
        super().over(how)
        if how == "aborted":
            self.relay.reset()
        else:
            self.relay.close()


class Chain:
    """A tenant ``a`` on one node behind one gateway.

    :ivar gateway: the gateway's core: its clients are the test's.
    :ivar node: the node's core; its upstreams stand in for PocketBase.
    """

    def __init__(
        self,
        answer: Callable[[Message], bytes] = lambda message: OK,
        pocketbase: Callable[[Wire, Any], Far] | None = None,
    ) -> None:
        self.world = World()
        clock, wire = self.world.clock, Wire()
        self.harness = NodeHarness(clock, FakeS3(clock))
        front = Front(
            tenants=self.harness.tenants,
            streams=Streams(clock, clock.seconds, 2.0),
            gateway_keys={"gateway_1": KEY},
            clock=clock,
            unix_ms=lambda: int(clock.seconds() * 1000),
            answered=lambda status: None,
        )
        front.starting = False
        self.harness.assign(assignment(name="a", hosts=(HOST,)))
        self.harness.load()
        self.harness.lease()
        self.world.cp.know(route("a", tenant_id=T, hosts=(HOST,)))
        self.node = Core(
            NODE_LIMITS,
            handler=front.handle,
            answer=answer,
            upstream=pocketbase,
            clock=clock,
            wire=wire,
        )
        self.gateway = Core(
            handler=self.world.proxy.handle,
            upstream=lambda wire, protocol: _Relay(wire, protocol, self.node),
            clock=clock,
            wire=wire,
        )

    @property
    def wire(self) -> Wire:
        return self.gateway.wire

    @property
    def requests(self) -> list[Message]:
        """All whole requests that reached PocketBase."""
        stand_ins = [far for far in self.node.upstreams if isinstance(far, StandIn)]
        return [message for far in stand_ins for message in far.requests]

    def ask(self, *pieces: bytes) -> Far:
        """A new client that says ``pieces``."""
        client = self.gateway.client()
        for piece in pieces:
            client.send(piece)
            self.wire.run()
        return client

    def forget(self, client: Far) -> None:
        """The client goes, all connections of the chain too."""
        self.node.end(client)
        self.gateway.end(client)


class ChainCase(SynchronousTestCase):
    """A test with a chain: no error may be logged in it, which trial sees to."""

    def chain(self, *args: Any, **kwargs: Any) -> Chain:
        return Chain(*args, **kwargs)
