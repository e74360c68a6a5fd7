"""A whole node over real sockets, with S3, Litestream and PocketBase played by fakes."""

from __future__ import annotations

import json
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, ResponseFailed, readBody
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from pbcluster import generations, wire
from pbcluster.config import NodeConfig, Secrets
from pbcluster.ending import exit_status
from pbcluster.errors import ConfigError
from pbcluster.generations import Generation, key_of
from pbcluster.node import generations as watch
from pbcluster.node.generations import S3Generations
from pbcluster.node.machine import encryption_key
from pbcluster.node.service import NodeService
from pbcluster.node.shells import Shells
from pbcluster.records import MemberRecord
from pbcluster.signing import NOT_PROCESSED, SIGNED, Signed, sign
from pbcluster.testing.node_fakes.node import fake_node
from pbcluster.testing.node_fakes.s3 import FakeS3
from pbcluster.transport import following
from pbcluster.transport.curve import PlainSockets
from pbcluster.transport.interfaces import Asked
from pbcluster.transport.request_server import ZmqRequestServer
from pbcluster.transport.sockets import Sockets
from tests.node.harness import HOST, T, assignment

SECRETS = Secrets(
    s3_access_key="a", s3_secret_key="b", tenant_key="c", gateway_keys={"gateway_a": "k"}
)
METHODS = (b"GET", b"POST")


class PocketBase(Resource):
    """Stands behind the front door. :ivar held: requests to /held, answered by the test."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Any] = []

    def render_GET(self, request: Any) -> bytes:
        if request.path == b"/held":
            self.held.append(request)
            return NOT_DONE_YET
        request.setHeader(b"X-PBCluster-Not-Processed", b"moved")
        return b"host " + request.getHeader(b"host")

    render_POST = render_GET


class NotEnded:
    """The reactor; whoever wants to end the process is counted, and ``at_end`` called, instead."""

    def __init__(self) -> None:
        self.ended = 0
        self.at_end: Any = lambda: None

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)

    def callWhenRunning(self, *_: Any) -> None:
        self.ended += 1
        self.at_end()


class NodeServiceTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.data_dir = Path(self.mktemp()).absolute()
        self.data_dir.mkdir()
        self.clock = Clock()
        self.fake = fake_node(self.clock, FakeS3(self.clock), "node_a")
        self.pocketbase = PocketBase()
        self.upstream = reactor.listenTCP(0, Site(self.pocketbase), interface="127.0.0.1")
        self.addCleanup(self.upstream.stopListening)
        self.fake.workloads.address = ("127.0.0.1", self.upstream.getHost().port)
        self.sockets = Sockets(reactor, "c1", "member_1", PlainSockets())
        self.addCleanup(self.sockets.close)
        self.plane = ZmqRequestServer(self.sockets, "tcp://127.0.0.1:0")
        self.plane.start(self.answer)
        self.addCleanup(self.plane.stop)
        self.heard: list[Any] = []
        self.members: tuple[MemberRecord, ...] = ()
        self.prepared = 0

    async def answer(self, asked: Asked, body: wire.Body) -> wire.Body:
        self.heard.append(body)
        if isinstance(body, wire.RegisterNode):
            mine = wire.NodeAssignments("node_a", 1, 1, (assignment(),))
            return wire.Registered(1, mine)
        if isinstance(body, wire.Lease):
            return wire.LeaseAck(True, 1)
        if isinstance(body, wire.ListMembers):
            return wire.Members(1, self.members)
        return wire.Ok()

    def config(self, **given: Any) -> NodeConfig:
        settings: dict[str, Any] = {
            "id": "node_a",
            "cluster_id": "c1",
            "data_dir": self.data_dir,
            "secrets_file": self.data_dir / "s",
            "peers_file": self.data_dir / "p",
            "listen": ("127.0.0.1", 0),
            "metrics_listen": ("127.0.0.1", 0),
            "members": (self.plane.endpoint,),
            "broadcasts": ("tcp://127.0.0.1:1",),
            "s3_endpoint": "http://127.0.0.1:1",
            "s3_bucket": "bucket",
        }
        return NodeConfig(**(settings | given))

    def shells(self, *_: Any) -> Shells:
        async def prepare() -> None:
            self.prepared += 1

        return Shells(
            claims=self.fake.claims,
            generations=S3Generations(self.fake.s3),
            replication=self.fake.replication,
            workloads=self.fake.workloads,
            directories=self.fake.directories,
            prepare=prepare,
            close=lambda: None,
        )

    def start(self) -> NodeService:
        sockets = Sockets(reactor, "c1", "node_a", PlainSockets())
        self.reactor = NotEnded()
        service = NodeService(self.reactor, self.config(), SECRETS, sockets, self.shells)
        service.startService()
        self.addCleanup(lambda: service.stopService() if service.running else None)
        return service

    async def until(self, condition: Any) -> None:
        while not condition():
            await deferLater(reactor, 0.02)

    async def ready(self) -> dict[str, Any]:
        file = self.data_dir / "ready.json"
        await self.until(file.exists)
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    async def ask(
        self, url: str, method: bytes = b"GET", target: bytes = b"/api/x", signed: bool = True
    ) -> tuple[int, bytes, Headers]:
        what = Signed("gateway_a", T, 1, time.time_ns() // 1_000_000, "r")
        headers = Headers({b"Host": [HOST.encode()]})
        for name, value in [(SIGNED, sign(b"k", method, target, what))] if signed else []:
            headers.addRawHeader(name, value)
        answer = await Agent(reactor).request(method, url.encode() + target, headers)
        return answer.code, await readBody(answer), answer.headers

    async def test_follows_the_members(self) -> None:
        """A member that is in no setting gets its leases after the one of the settings is gone."""
        self.patch(following, "FIRST_S", 0.05)
        leased: list[wire.Body] = []

        async def answer(asked: Asked, body: wire.Body) -> wire.Body:
            leased.append(body)
            return await self.answer(asked, body)

        sockets = Sockets(reactor, "c1", "member_2", PlainSockets())
        self.addCleanup(sockets.close)
        other = ZmqRequestServer(sockets, "tcp://127.0.0.1:0")
        other.start(answer)
        self.addCleanup(other.stop)
        record = MemberRecord(
            id="member_2",
            raft="tcp://127.0.0.1:1",
            requests=other.endpoint,
            broadcasts="tcp://127.0.0.1:1",
            admin="http://127.0.0.1:1",
        )
        self.members = (record,)
        self.start()
        await self.ready()
        await self.until(lambda: any(isinstance(each, wire.Lease) for each in leased))

    async def test_serves(self) -> None:
        """It registers, says where it listens, and hands signed requests to PocketBase."""
        service = self.start()
        where = await self.ready()
        self.assertIsInstance(self.heard[0], wire.RegisterNode)
        self.assertEqual(self.heard[0].address, where["node"])
        status, body, headers = await self.ask(where["node"])
        self.assertEqual((status, body), (200, b"host " + HOST.encode()))
        self.assertFalse(headers.hasHeader(NOT_PROCESSED), "PocketBase's own mark")
        self.assertEqual((await self.ask(where["node"], b"POST"))[0], 200)
        self.assertEqual((await self.ask(where["node"], signed=False))[0], 401)
        status, body, _ = await self.ask(where["metrics"], target=b"/metrics")
        self.assertIn(b'pbcluster_node_tenants{state="active"} 1.0', body)
        self.assertEqual((await self.ask(where["metrics"], target=b"/readyz"))[0], 200)
        self.assertEqual(self.prepared, 1)
        await service.stopService()
        self.assertFalse((self.data_dir / "ready.json").exists())
        self.assertEqual(self.fake.workloads.running, {})
        self.assertFalse(self.fake.replication.running)
        outcomes = [each.outcome for each in self.heard if isinstance(each, wire.TenantReport)]
        self.assertEqual(outcomes, ["ready"], "an end reports nothing")

    async def test_waits_for_s3(self) -> None:
        """With S3 away it stays up, does not register, and serves when S3 comes."""
        self.fake.s3.faults.down = True
        service = self.start()
        await self.until(lambda: any("waiting for S3" in each for each in service.not_ready()))
        self.assertEqual(self.heard, [])
        self.fake.s3.faults.down = False
        where = await self.ready()
        self.assertEqual((await self.ask(where["node"]))[0], 200)
        await service.stopService()

    async def test_stops_while_it_waits(self) -> None:
        """A node that never found its S3 ends cleanly."""
        self.fake.s3.faults.down = True
        service = self.start()
        await self.until(lambda: any("waiting for S3" in each for each in service.not_ready()))
        await service.stopService()
        await deferLater(reactor, 1.1)
        self.assertEqual(self.heard, [])

    def belongs_to(self, cluster_id: str, number: int) -> None:
        """The bucket is another's from now on."""
        record = Generation(generation=number, cluster_id=cluster_id, previous="c1", at="")
        self.fake.s3.s3.write(key_of(number), generations.encode(record))

    async def test_foreign_bucket(self) -> None:
        """A node whose bucket belongs to another cluster says whose it is and ends, unheard."""
        self.belongs_to("c2", 1)
        told = self.patch(sys, "__stderr__", StringIO())
        service = self.start()
        await self.until(lambda: self.reactor.ended)
        told.restore()
        self.assertEqual(exit_status(self.reactor), 1)
        self.assertEqual(self.heard, [])
        await service.stopService()

    async def test_superseded(self) -> None:
        """From the look that finds a newer generation on no request is answered: neither one that
        PocketBase has, nor a write that waits for its sync, nor a new one; leases do not help. The
        control plane is not told, and the process ends with status 1."""
        self.patch(watch, "LOOK_INTERVAL_S", 0.1)
        service = self.start()
        where = await self.ready()
        read, write = (ensureDeferred(self.ask(where["node"], m, b"/held")) for m in METHODS)
        await self.until(lambda: len(self.pocketbase.held) == 2)
        self.fake.replication.sync_delay_s = 1000.0  # of a clock that the test moves
        self.fake.workloads.running[T].write("row")
        waiting = [ensureDeferred(self.ask(where["node"], b"POST"))]
        await self.until(lambda: service._made.tenants.find(T).replication.waiting_writes)
        told = self.patch(sys, "__stderr__", StringIO())
        # PocketBase answers in the very turn of the look, before any connection is closed.
        self.reactor.at_end = lambda: [each.finish() for each in self.pocketbase.held]
        self.belongs_to("c2", 2)
        await self.until(lambda: self.reactor.ended)
        self.clock.advance(2000.0)  # the sync succeeds, too late
        for each in (read, write, *waiting):
            with self.assertRaises((ResponseFailed, ConnectionLost)):
                await each
        self.assertEqual((await self.ask(where["node"]))[0], 503)
        self.assertEqual(self.fake.workloads.running, {})
        self.assertIn("belongs to cluster c2 (generation 2)", sys.__stderr__.getvalue())
        told.restore()
        self.assertEqual((exit_status(self.reactor), self.reactor.ended), (1, 1))
        await service.stopService()
        outcomes = [each.outcome for each in self.heard if isinstance(each, wire.TenantReport)]
        self.assertEqual(outcomes, ["ready"])
        self.assertFalse([each for each in self.heard if isinstance(each, wire.NodeCapacity)])

    def test_missing_secret(self) -> None:
        """A node without its secrets says which one is missing."""
        sockets = Sockets(reactor, "c1", "node_a", PlainSockets())
        self.addCleanup(sockets.close)
        error = self.assertRaises(
            ConfigError, NodeService, reactor, self.config(), Secrets(), sockets, self.shells
        )
        self.assertIn("s3_access_key", str(error))

    def test_encryption_key(self) -> None:
        """32 hex characters that differ by tenant and by cluster."""
        keys = {encryption_key(a, b) for a in ("x", "y") for b in (T, "tenant_bbbbbbbb")}
        self.assertEqual(len(keys), 4)
        for key in keys:
            self.assertRegex(key, r"^[0-9a-f]{32}$")
