"""The admin API over real HTTP on the loopback, before a member without sockets and disk."""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import bcrypt
import treq
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from pbcluster import authority, wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_api import AdminAPI
from pbcluster.controlplane.admin_auth import MAX_FAILURES, AdminAuth
from pbcluster.controlplane.admin_guard import HASHES_AT_ONCE
from pbcluster.controlplane.executor import utc_now
from pbcluster.controlplane.membership import Membership
from pbcluster.controlplane.planner import Assign
from pbcluster.controlplane.service import listen
from pbcluster.errors import Unauthorized
from pbcluster.records import NodeResources, TenantRecord, TenantStatus, is_tenant_id
from tests.controlplane.lease_world import World

TOKEN = "the-admin-token"
PASSWORD = "correct horse battery"
AUTHORITY = authority.new("cluster_1", datetime.now(UTC))


class Collect(Protocol):
    """All bytes until the other side closes."""

    def __init__(self) -> None:
        self.data = b""
        self.closed: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.closed.callback(self.data)


class AdminCase(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.world = World(1, nodes=2, tenants=0)
        self.addCleanup(self.world.close)
        # The world's clock goes on while real requests are answered.
        self.ticking = task.LoopingCall(self.world.run_for, 0.02)
        self.ticking.start(0.004)
        self.addCleanup(self.ticking.stop)
        world = self.world
        self.threads = 0
        self.api = api = AdminAPI(
            world.clock,
            world.consensus,
            world.liveness,
            world.planner,
            world.executor,
            world.requests,
            AdminAuth(
                hashlib.sha256(TOKEN.encode()).hexdigest(),
                lambda: world.consensus.registry.api_tokens,
            ),
            self.in_thread,
            group=Membership(world.clock, world.consensus, utc_now),
            cluster_id="cluster_1",
            migrating=world.migrating,
            authority=AUTHORITY,
        )
        port = listen(reactor, ("127.0.0.1", 0), api, "admin-listen")
        self.port = port.getHost().port
        self.addCleanup(port.stopListening)
        self.pool = HTTPConnectionPool(reactor, persistent=False)
        self.addCleanup(self.pool.closeCachedConnections)
        self.agent = Agent(reactor, pool=self.pool)
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        self.logged.append(repr(event))

    def in_thread(self, function: Any, *args: Any) -> Deferred[Any]:
        self.threads += 1
        return maybeDeferred(function, *args)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | bytes | None = TOKEN,
        **headers: str,
    ) -> tuple[int, Any]:
        sent: dict[bytes, list[bytes]] = {
            name.replace("_", "-").encode(): [value.encode()] for name, value in headers.items()
        }
        if token is not None:
            raw = token if isinstance(token, bytes) else token.encode()
            sent[b"authorization"] = [b"Bearer " + raw]
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}/api/cp{path}"
        response = await treq.request(method, url, headers=sent, data=data, agent=self.agent)
        self.headers = response.headers
        text = await response.content()
        return response.code, json.loads(text) if text.strip() else None

    async def create(self, name: str, wait: str = "?wait=5", **more: Any) -> Any:
        status, created = await self.ask("POST", f"/tenants{wait}", {"name": name} | more)
        self.assertEqual(status, 201, created)
        return created


class Wrong:
    """A planner's ``place`` that names a node which is not there, the first time."""

    def __init__(self, place: Callable[..., Assign | None]) -> None:
        self._place = place
        self._named = False

    def __call__(self, tenant: TenantRecord, now: float) -> Assign | None:
        found = self._place(tenant, now)
        if found is None or self._named:
            return found
        self._named = True
        return attrs.evolve(found, node_id="node_gone")


class TestAuthorisation(AdminCase):
    async def test_everything_but_health_needs_the_token(self) -> None:
        """Missing and wrong tokens are 401 with PocketBase's body; health tells only its status."""
        for method, path in (
            ("GET", "/tenants"),
            ("POST", "/tenants"),
            ("GET", "/tenants/x"),
            ("PUT", "/tenants/x"),
            ("DELETE", "/tenants/x"),
            ("GET", "/nodes"),
            ("GET", "/nodes/x"),
        ):
            for token in (None, "wrong", b"\xff\xfe"):
                status, body = await self.ask(method, path, token=token)
                self.assertEqual(status, 401, (method, path, token))
                self.assertEqual(set(body), {"status", "message", "data"})
                self.assertEqual(self.headers.getRawHeaders("www-authenticate"), ["Bearer"])
        status, body = await self.ask("GET", "/health", token=None)
        self.assertEqual((status, body["status"]), (200, "ok"))
        self.assertLessEqual(set(body), {"status", "leader"})
        status, body = await self.ask("GET", "/health")
        self.assertEqual(set(body["nodes"]), {"node_0", "node_1"})

    async def test_the_right_token_is_never_locked_out(self) -> None:
        """Wrong tries from the operator's own address end in "wait", his own do not."""
        statuses = [
            (await self.ask("GET", "/nodes", token="no"))[0] for _ in range(MAX_FAILURES + 3)
        ]
        self.assertEqual(statuses[-3:], [429, 429, 429])
        self.assertEqual((await self.ask("GET", "/nodes"))[0], 200)

    async def test_without_a_token_hash_nobody_may(self) -> None:
        """An empty secret is not a key."""
        auth = AdminAuth("")
        for given in (b"Bearer ", b"Bearer x"):
            self.assertRaises(Unauthorized, auth.check, given, "a", 0.0)


class TestTenants(AdminCase):
    async def test_a_tenant_is_created_shown_and_deleted(self) -> None:
        """201 when it is ready; found by id and name with its route; 404 after its end."""
        created = await self.create("shop", durability="async", metadata={"plan": "free"})
        self.assertTrue(is_tenant_id(created["id"]))
        self.assertEqual((created["status"], created["durability"]), ("active", "async"))
        self.assertEqual(created["nodeAddr"], "http://127.0.0.1:1")
        self.assertEqual(created["domain"], "shop.localhost")
        for key in ("shop", created["id"]):
            self.assertEqual((await self.ask("GET", f"/tenants/{key}"))[1], created)
        status, body = await self.ask("DELETE", "/tenants/shop?confirm=shop&wait=5")
        self.assertEqual((status, body["status"]), (200, "deleted"))
        for key in ("shop", created["id"]):
            self.assertEqual((await self.ask("GET", f"/tenants/{key}"))[0], 404)
        again = await self.create("shop")
        self.assertNotEqual(again["id"], created["id"])

    async def test_a_password_is_hashed_and_kept_nowhere(self) -> None:
        """Not in the answer, the registry, the log on disk or the log lines; the hash fits."""
        superuser = {"email": "ann@example.com", "password": PASSWORD}
        for process in self.world.processes:
            process.frozen = True
        status, body = await self.ask(
            "POST", f"/tenants?x={PASSWORD[:7]}", {"name": "shop", "superuser": superuser}
        )
        self.assertEqual(status, 202)
        self.assertEqual(self.threads, 1)
        self.assertNotIn("initialSuperuser", body)
        login = self.world.registry.tenant("shop").initial_superuser
        assert login is not None
        self.assertTrue(bcrypt.checkpw(PASSWORD.encode(), login.password_hash.encode()))
        self.assertNotIn("$2b$", json.dumps(await self.ask("GET", "/tenants")))
        everything = b"".join(entry.data for entry in self.world.store.entries)
        self.assertNotIn(PASSWORD.encode(), everything)
        lines = "\n".join(self.logged)
        self.assertNotIn("correct", lines)
        self.assertNotIn(TOKEN, lines)
        self.assertIn("/api/cp/tenants", lines)

    async def test_few_passwords_are_hashed_at_once(self) -> None:
        """However many are to be: the others wait, and all are created."""
        waiting: list[Deferred[None]] = []
        most = 0

        def in_thread(function: Any, *args: Any) -> Deferred[Any]:
            nonlocal most
            done: Deferred[None] = Deferred()
            waiting.append(done)
            most = max(most, len(waiting))
            return done.addCallback(lambda _: function(*args))

        self.patch(self.api, "_in_thread", in_thread)
        superuser = {"email": "ann@example.com", "password": PASSWORD}
        asked = [
            Deferred.fromCoroutine(
                self.ask("POST", "/tenants", {"name": f"t{number}", "superuser": superuser})
            )
            for number in range(HASHES_AT_ONCE + 3)
        ]
        while not all(each.called for each in asked):
            await task.deferLater(reactor, 0.01)
            if waiting:
                waiting.pop().callback(None)
        for each in asked:
            status, _ = await each
            self.assertIn(status, (201, 202))
        self.assertEqual(most, HASHES_AT_ONCE)

    async def test_wrong_bodies_name_the_field(self) -> None:
        """400, PocketBase's body, the field in ``data``."""
        good = {"email": "a@example.com", "password": PASSWORD}
        for body, field in (
            ({}, "name"),
            ({"name": "Shop"}, "name"),
            ({"name": "-a"}, "name"),
            ({"name": 3}, "name"),
            ({"name": "a", "nmae": 1}, "nmae"),
            ({"name": "a", "durability": "maybe"}, "durability"),
            ({"name": "a", "quotas": {"burst": "x"}}, "burst"),
            ({"name": "a", "quotas": {"burst": -1}}, "burst"),
            ({"name": "a", "quotas": {"burst": True}}, "burst"),
            ({"name": "a", "quotas": {"brust": 1}}, "brust"),
            ({"name": "a", "metadata": []}, "metadata"),
            ({"name": "a", "superuser": good | {"email": "nobody"}}, "email"),
            ({"name": "a", "superuser": good | {"password": "short"}}, "password"),
            ({"name": "a", "superuser": good | {"password": "x" * 72}}, "password"),
            ({"name": "a", "superuser": good | {"role": "x"}}, "role"),
            ([], "body"),
        ):
            status, answer = await self.ask("POST", "/tenants", body)
            self.assertEqual(status, 400, body)
            self.assertIn(field, answer["data"], body)
            self.assertEqual(set(answer["data"][field]), {"code", "message"})
        self.assertEqual(list(self.world.registry.tenants()), [])

    async def test_what_is_no_json_is_refused(self) -> None:
        """Broken, not UTF-8, too deep, NaN, half a surrogate pair."""
        for body in (
            b"{",
            b"",
            b"\xff",
            b'{"name":"a","metadata":' + b"[" * 100_000,
            b'{"name":"a","metadata":{"x":NaN}}',
            b'{"name":"a","metadata":{"x":"\\ud800"}}',
        ):
            status, _ = await self.ask("POST", "/tenants", body)
            self.assertEqual(status, 400, body[:60])
        await self.create("after")

    async def test_what_fits_its_type_and_cannot_be_is_told_apart(self) -> None:
        """422 with the field's name: a number of more than 64 bits, too much metadata, a password
        of too many bytes."""
        login = {"email": "a@example.com", "password": "é" * 40}
        for body, field in (
            ({"name": "a", "metadata": {"x": 10**30}}, "metadata"),
            ({"name": "a", "metadata": {"x": "y" * 17000}}, "metadata"),
            ({"name": "a", "superuser": login}, "password"),
        ):
            status, answer = await self.ask("POST", "/tenants", body)
            self.assertEqual((status, list(answer["data"])), (422, [field]))
        self.assertEqual(list(self.world.registry.tenants()), [])

    async def test_a_taken_name_is_a_conflict(self) -> None:
        """409."""
        await self.create("shop")
        status, body = await self.ask("POST", "/tenants", {"name": "shop"})
        self.assertEqual((status, body["data"]["name"]["code"]), (409, "conflict"))

    async def test_a_repeated_key_creates_once(self) -> None:
        """The same answer for the same key; another name under it is refused."""
        made = [
            (await self.ask("POST", "/tenants?wait=5", {"name": "a"}, idempotency_key="k1"))[1][
                "id"
            ]
            for _ in range(2)
        ]
        self.assertEqual(made[0], made[1])
        status, _ = await self.ask("POST", "/tenants", {"name": "b"}, idempotency_key="k1")
        self.assertEqual(status, 409)
        status, body = await self.ask("POST", "/tenants", {"name": "c"}, idempotency_key="x" * 201)
        self.assertEqual(status, 400)
        self.assertIn("Idempotency-Key", body["data"])

    async def test_a_creation_is_one_entry(self) -> None:
        """With its node; a second one is the node's word that it serves."""
        before = len(self.world.store.entries)
        await self.create("shop")
        entries = [c.decode(each.data) for each in self.world.store.entries[before:] if each.data]
        kinds = [type(each.command).__name__ for each in entries]
        self.assertEqual(kinds, ["CreateTenant", "MarkReady"])

    async def test_a_node_that_is_full_by_then(self) -> None:
        """It is created all the same, and placed elsewhere at once."""
        self.world.planner.place = Wrong(self.world.planner.place)  # type: ignore[method-assign]
        created = await self.create("shop")
        self.assertIn(created["nodeID"], ("node_0", "node_1"))
        self.assertEqual(created["status"], "active")

    async def test_no_room_is_told_with_the_reason(self) -> None:
        """503 with Retry-After, and nothing is created."""
        for process in self.world.processes:
            self.world.kill(process)
        self.world.run_for(3.0)
        status, body = await self.ask("POST", "/tenants", {"name": "shop"})
        self.assertEqual(status, 503)
        self.assertIn("node_0 does not answer", body["message"])
        self.assertTrue(self.headers.hasHeader("retry-after"))
        self.assertEqual(list(self.world.registry.tenants()), [])

    async def test_changes_need_the_right_version(self) -> None:
        """Quotas and metadata change; an older version is a conflict."""
        created = await self.create("shop")
        change = {"quotas": {"burst": 7}, "version": created["version"]}
        status, changed = await self.ask("PUT", "/tenants/shop", change)
        self.assertEqual((status, changed["quotas"]["burst"]), (200, 7))
        self.assertEqual((await self.ask("PUT", "/tenants/shop", change))[0], 409)
        self.assertEqual((await self.ask("PUT", "/tenants/shop", {"name": "x"}))[0], 400)

    async def test_durability_is_changed(self) -> None:
        """PATCH and PUT change it; words and types that are not allowed are named."""
        created = await self.create("shop", durableReads=True, onS3Outage="reject")
        self.assertEqual((created["durableReads"], created["onS3Outage"]), (True, "reject"))
        change = {"durability": "async", "durableReads": False, "onS3Outage": "degrade"}
        status, changed = await self.ask("PATCH", "/tenants/shop", change)
        self.assertEqual((status, changed["durableReads"]), (200, False))
        # A node has it: what it acknowledged before must be in S3 first.
        found = {changed["durability"], changed["wantedDurability"]}
        self.assertIn("async", found)
        for wrong in ({"durability": "x"}, {"durableReads": 1}, {"onS3Outage": "y"}):
            status, told = await self.ask("PATCH", "/tenants/shop", wrong)
            self.assertEqual((status, list(told["data"])[:1]), (400, list(wrong)))

    async def test_giving_away(self) -> None:
        """Only a degraded tenant whose node does not go on is given away, and only by somebody who
        says that it loses something; until then health has an alarm."""
        created = await self.create("shop")
        give = "/tenants/shop/give-away"
        self.assertEqual((await self.ask("POST", give, {}))[0], 422)
        accept = {"acceptLoss": True}
        status, told = await self.ask("POST", give, accept)
        self.assertEqual(status, 409)
        self.assertIn("not degraded", told["message"])
        node = self.world.registry.node(created["nodeID"])
        flag = c.SetDegraded(
            utc_now(), created["id"], node.id, created["epoch"], node.incarnation, degraded=True
        )
        await self.world.consensus.propose(flag)
        self.assertIn("shop", (await self.ask("GET", "/health"))[1]["alarms"][0])
        status, told = await self.ask("POST", give, accept)
        self.assertEqual(status, 409)
        self.assertIn("answers", told["message"])
        self.world.requests.reports.stranded[created["id"]] = created["epoch"]
        status, told = await self.ask("POST", give, accept)
        self.assertEqual((status, told["degraded"]), (200, False))
        self.assertEqual((await self.ask("GET", "/health"))[1]["alarms"], [])

    async def test_lists_have_pages(self) -> None:
        """PocketBase's shape; wrong pages are refused."""
        for number in range(3):
            await self.create(f"t{number}")
        _, page = await self.ask("GET", "/tenants?page=2&perPage=2")
        self.assertEqual([t["name"] for t in page["items"]], ["t2"])
        self.assertEqual((page["page"], page["perPage"], page["totalItems"]), (2, 2, 3))
        for query in ("page=0", "page=x", "perPage=501", "perPage=-1", "page=%FF"):
            self.assertEqual((await self.ask("GET", f"/tenants?{query}"))[0], 400, query)
        for wait in ("61", "-1", "nan", "x"):
            status, _ = await self.ask("POST", f"/tenants?wait={wait}", {"name": "n"})
            self.assertEqual(status, 400, wait)


class TestOthers(AdminCase):
    async def test_nodes_show_what_their_heartbeats_brought(self) -> None:
        """Soft state is filled in; the start id is not shown."""
        created = await self.create("shop")
        status, node = await self.ask("GET", f"/nodes/{created['nodeID']}")
        self.assertEqual(status, 200)
        self.assertEqual((node["alive"], node["tenants"]), (True, [created["id"]]))
        self.assertTrue(node["lastHeartbeat"])
        self.assertIn("cpuUsage", node["resources"])
        self.assertNotIn("startID", node)
        _, nodes = await self.ask("GET", "/nodes")
        self.assertEqual(sorted(n["id"] for n in nodes["items"]), ["node_0", "node_1"])
        self.assertEqual((await self.ask("GET", "/nodes/nobody"))[0], 404)

    async def test_a_failure_of_the_node_is_shown(self) -> None:
        """An operator sees why a tenant does not run."""
        created = await self.create("shop")
        self.world.requests.reports.failures[created["id"]] = "restore failed"
        _, shown = await self.ask("GET", "/tenants/shop")
        self.assertEqual(shown["lastError"], "restore failed")

    async def test_a_degraded_node_is_shown_as_such(self) -> None:
        """By its own word."""
        beat = wire.Heartbeat(
            "node_0", 1, self.world.registry.tenant, "degraded", 5, 0, 0, NodeResources()
        )
        self.world.liveness.heartbeat(beat, self.world.now)
        self.assertEqual((await self.ask("GET", "/nodes/node_0"))[1]["status"], "degraded")

    async def test_unknown_pages_and_methods(self) -> None:
        """404 and 405 in the same form."""
        for method, path, wanted in (("GET", "/nope", 404), ("PATCH", "/tenants", 405)):
            status, body = await self.ask(method, path)
            self.assertEqual((status, body["status"]), (wanted, wanted))

    async def test_a_body_too_large_is_not_read(self) -> None:
        """413 after the headers, or after the first megabyte of a body without a length."""
        for head, more in (
            (b"Content-Length: 9999999", b""),
            (b"Transfer-Encoding: chunked", b"200000\r\n" + b"x" * 0x200000),
        ):
            protocol = Collect()
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
            await connectProtocol(endpoint, protocol)
            assert protocol.transport is not None
            protocol.transport.write(
                b"POST /api/cp/tenants HTTP/1.1\r\nHost: x\r\n"
                b"Authorization: Bearer " + TOKEN.encode() + b"\r\n" + head + b"\r\n\r\n" + more
            )
            data = await protocol.closed
            self.assertTrue(data.startswith(b"HTTP/1.1 413 "), data[:80])
            self.assertIn(b'"status": 413', data)
        self.assertEqual((await self.ask("POST", "/tenants", b"x" * 200_000))[0], 400)

    async def test_a_line_too_long_is_answered(self) -> None:
        """414 for a target, 431 for a header of more than 16 KiB; then the connection ends."""
        for head, wanted in (
            (b"GET /api/cp/tenants?x=" + b"y" * 20_000, b"414"),
            (b"GET /api/cp/tenants HTTP/1.1\r\nX-Long: " + b"y" * 20_000, b"431"),
        ):
            protocol = Collect()
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
            await connectProtocol(endpoint, protocol)
            assert protocol.transport is not None
            protocol.transport.write(head + b" HTTP/1.1\r\nHost: x\r\n\r\n")
            data = await protocol.closed
            self.assertTrue(data.startswith(b"HTTP/1.1 " + wanted), data[:80])
            self.assertEqual(json.loads(data.partition(b"\r\n\r\n")[2])["status"], int(wanted))

    async def test_a_member_that_does_not_lead_says_so(self) -> None:
        """Health and changes are 503."""
        self.world.consensus._driver.end("it must not go on")
        self.world.trouble.clear()
        self.assertEqual((await self.ask("GET", "/health", token=None))[0], 503)
        self.assertEqual((await self.ask("GET", "/tenants"))[0], 503)

    async def test_a_repeated_deletion_is_about_the_first(self) -> None:
        """Its answer was lost, and the name is another tenant's by then: that one stays."""
        first = await self.create("shop")
        key = {"idempotency-key": "k1"}
        status, _ = await self.ask("DELETE", "/tenants/shop?confirm=shop&wait=5", **key)
        self.assertEqual(status, 200)
        second = await self.create("shop")
        status, told = await self.ask("DELETE", "/tenants/shop?confirm=shop&wait=5", **key)
        self.assertEqual((status, told["id"]), (200, first["id"]))
        self.assertEqual((await self.ask("GET", f"/tenants/{second['id']}"))[0], 200)

    async def test_a_repeated_change_is_made_once(self) -> None:
        """A change that names a version is no conflict with itself."""
        created = await self.create("shop")
        version = (await self.ask("GET", "/tenants/shop"))[1]["version"]
        change = {"metadata": {"a": 1}, "version": version}
        for _ in range(2):
            status, told = await self.ask(
                "PUT", "/tenants/shop", change, **{"idempotency-key": "k"}
            )
            self.assertEqual((status, told["id"]), (200, created["id"]), told)
        self.assertEqual((await self.ask("PUT", "/tenants/shop", change))[0], 409)

    async def test_archive_and_activate(self) -> None:
        """200 when it is done; both may be repeated, under one key or without; 404 for none."""
        created = await self.create("shop")
        for key in ({"idempotency-key": "k"}, {"idempotency-key": "k"}, {}):
            status, body = await self.ask("POST", "/tenants/shop/archive?wait=5", **key)
            self.assertEqual((status, body["status"], body["nodeID"]), (200, "archived", ""))
        self.assertEqual((await self.ask("GET", "/tenants/shop"))[1]["status"], "archived")
        for key in ({"idempotency-key": "k"}, {}):
            status, body = await self.ask("POST", "/tenants/shop/activate", **key)
            self.assertEqual((status, body["id"]), (200, created["id"]))
            self.assertIn(body["status"], ("idle", "active"))
            self.assertNotEqual(body["nodeID"], "")
        for action in ("archive", "activate"):
            self.assertEqual((await self.ask("POST", f"/tenants/nix/{action}"))[0], 404)
            self.assertEqual((await self.ask("GET", f"/tenants/shop/{action}"))[0], 405)
            status, _ = await self.ask("POST", f"/tenants/shop/{action}", token="wrong")
            self.assertEqual(status, 401)

    async def test_archiving_is_told_while_its_node_is_silent(self) -> None:
        """202, and activating it meanwhile is a conflict."""
        await self.create("shop")
        for process in self.world.processes:
            process.frozen = True
        status, body = await self.ask("POST", "/tenants/shop/archive?wait=0.1")
        self.assertEqual((status, body["status"]), (202, "archiving"))
        status, body = await self.ask("POST", "/tenants/shop/activate")
        self.assertEqual(
            (status, body["message"]), (409, "tenant 'shop' is archiving, not archived")
        )

    async def test_purge(self) -> None:
        """With the word ``now`` only; a tombstone is found by its id, once for all."""
        created = await self.create("shop")
        self.assertEqual(
            (await self.ask("DELETE", "/tenants/shop?confirm=shop&purge=soon"))[0], 400
        )
        status, body = await self.ask("DELETE", "/tenants/shop?confirm=shop&wait=5")
        self.assertEqual(status, 200)
        kept = datetime.fromisoformat(body["purgeAt"]) - datetime.fromisoformat(body["updated"])
        self.assertGreater(kept, timedelta(days=6))
        again = f"/tenants/{created['id']}?confirm={created['id']}"
        self.assertEqual((await self.ask("DELETE", again))[0], 404)
        status, body = await self.ask("DELETE", f"{again}&purge=now")
        self.assertEqual(status, 200)
        self.assertFalse(body["purged"])
        for _ in range(200):
            if self.world.registry.tenant(created["id"]).purged:
                break
            await task.deferLater(reactor, 0.02)
        self.assertTrue(self.world.registry.tenant(created["id"]).purged)

    async def test_a_deleting_tenant_is_shown_until_its_end(self) -> None:
        """202 while its node still has it."""
        created = await self.create("shop")
        for process in self.world.processes:
            process.frozen = True
        status, body = await self.ask("DELETE", "/tenants/shop?confirm=shop")
        self.assertEqual((status, body["status"]), (202, TenantStatus.DELETING.value))
        self.assertEqual((await self.ask("GET", f"/tenants/{created['id']}"))[0], 200)
        self.assertEqual((await self.ask("GET", "/tenants/shop"))[0], 404)
