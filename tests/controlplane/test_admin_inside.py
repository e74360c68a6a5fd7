"""Logins into tenants and their logs in the admin API, with nodes that answer as the test says."""

from __future__ import annotations

from typing import Any

from pbcluster import wire
from pbcluster.controlplane import admin_inside
from pbcluster.errors import (
    DeadlineExceeded,
    NotFound,
    OwnershipLost,
    PBClusterError,
    ProcessFailed,
    Unavailable,
)
from tests.controlplane.test_admin_api import AdminCase

SECRET = "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IngifQ.c2VjcmV0"


class InsideCase(AdminCase):
    def setUp(self) -> None:
        super().setUp()
        self.asked: list[tuple[str, wire.Body]] = []
        self.replies: list[wire.Body | PBClusterError] = []
        self.audited_before: list[int] = []
        self.world.executor.ask_node = self.ask_node  # type: ignore[method-assign]

    async def ask_node(self, node_id: str, body: wire.Body, *, timeout_s: float) -> wire.Body:
        self.assertGreater(timeout_s, 0)
        self.asked.append((node_id, body))
        self.audited_before.append(len(self.world.consensus.registry.audit))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, PBClusterError):
            raise reply
        return reply

    async def tokened(self, role: str) -> str:
        status, made = await self.ask("POST", "/api-tokens", {"name": role, "role": role})
        self.assertEqual(status, 201, made)
        token: str = made["token"]
        return token

    async def trail(self, action: str) -> list[dict[str, Any]]:
        _, page = await self.ask("GET", "/audit")
        return [entry for entry in page["items"] if entry["action"] == action]


class LoginTests(InsideCase):
    async def test_login(self) -> None:
        """The node that has the tenant is asked, under its epoch; the token comes back, expires as
        was asked, and was told to the audit trail before; it is in no log."""
        tenant = await self.create("shop")
        self.replies = [wire.Login("me@example.com", "abc", SECRET)]
        body = {"email": "me@example.com", "expiresIn": 60}
        before = len(self.world.consensus.registry.audit)
        status, found = await self.ask("POST", "/tenants/shop/login", body)
        self.assertEqual(status, 201, found)
        self.assertEqual((found["token"], found["recordID"]), (SECRET, "abc"))
        self.assertEqual((found["email"], found["host"]), ("me@example.com", "shop.localhost"))
        self.assertEqual(self.headers.getRawHeaders(b"cache-control"), [b"no-store"])
        question = wire.MintLogin(tenant["id"], tenant["epoch"], "me@example.com", 60)
        self.assertEqual(self.asked, [(tenant["nodeID"], question)])
        self.assertEqual(self.audited_before, [before + 1])
        (entry,) = await self.trail("tenant.login")
        self.assertEqual((entry["target"], entry["actor"]), (tenant["id"], "admin"))
        self.assertEqual(entry["detail"], "as me@example.com for 60 s")
        self.assertEqual(entry["address"], "127.0.0.1")
        self.assertNotIn(SECRET, str(self.logged))

    async def test_who_may(self) -> None:
        """Viewers may neither sign in nor read logs, and are told no superuser; operators may."""
        await self.create("shop")
        self.replies = [wire.Login("me@example.com", "abc", SECRET)]
        viewer, operator = await self.tokened("viewer"), await self.tokened("operator")
        for method, path in (("POST", "login"), ("GET", "logs")):
            status, body = await self.ask(method, f"/tenants/shop/{path}", token=viewer)
            self.assertEqual(status, 403)
            self.assertNotIn("example.com", str(body))
        self.assertEqual(self.asked, [])
        status, _ = await self.ask("POST", "/tenants/shop/login", token=operator)
        self.assertEqual(status, 201)
        self.assertEqual(self.asked[0][1].email, "")  # type: ignore[union-attr]
        self.assertEqual(self.asked[0][1].lifetime_s, 900)  # type: ignore[union-attr]

    async def test_bad_bodies(self) -> None:
        """A lifetime of more than an hour, or none, and unknown fields are refused by name."""
        await self.create("shop")
        for body, field in (
            ({"expiresIn": 3601}, "expiresIn"),
            ({"expiresIn": 0}, "expiresIn"),
            ({"email": 5}, "email"),
            ({"email": "x" * 256}, "email"),
            ({"password": "x"}, "password"),
        ):
            status, told = await self.ask("POST", "/tenants/shop/login", body)
            self.assertEqual((status, list(told["data"])), (400, [field]))
        self.assertEqual((await self.ask("POST", "/tenants/none/login"))[0], 404)
        self.assertEqual(self.asked, [])

    async def test_a_tenant_that_moves(self) -> None:
        """A node that lost the tenant, that is silent, or that still loads it is asked again, or
        its successor is, until one answers."""
        await self.create("shop")
        self.replies = [
            OwnershipLost("gone", epoch=2),
            DeadlineExceeded("silent"),
            Unavailable("loading"),
            wire.Login("me@example.com", "abc", SECRET),
        ]
        status, _ = await self.ask("POST", "/tenants/shop/login")
        self.assertEqual((status, len(self.asked)), (201, 4))

    async def test_a_node_that_stays_away(self) -> None:
        """After the deadline it is told which node does not answer; 421 is never shown."""
        tenant = await self.create("shop")
        self.patch(admin_inside, "WAKE_WITHIN_S", 1.0)
        self.replies = [DeadlineExceeded("no answer")]
        status, told = await self.ask("POST", "/tenants/shop/login")
        self.assertEqual(status, 503)
        self.assertIn(f"{tenant['nodeID']} does not answer", told["message"])
        self.replies = [OwnershipLost("not here", epoch=1)]
        status, told = await self.ask("POST", "/tenants/shop/login")
        self.assertEqual(status, 503)
        self.assertIn("the tenant is moving", told["message"])

    async def test_what_the_node_refuses(self) -> None:
        """No such superuser is 404, a PocketBase that gives no token 503: told at once."""
        await self.create("shop")
        self.replies = [NotFound("the tenant has no superuser")]
        self.assertEqual((await self.ask("POST", "/tenants/shop/login"))[0], 404)
        self.replies = [ProcessFailed("its hooks changed the route")]
        self.assertEqual((await self.ask("POST", "/tenants/shop/login"))[0], 503)
        self.assertEqual(len(self.asked), 2)
        self.replies = [wire.Ok()]
        status, told = await self.ask("POST", "/tenants/shop/login")
        self.assertEqual(status, 503)
        self.assertIn("does not understand", told["message"])


class LogTests(InsideCase):
    async def test_lines(self) -> None:
        """The node's lines with their cursor; the first look is in the audit trail, those of one
        who follows are not."""
        tenant = await self.create("shop")
        self.replies = [wire.LogLines("life.3", ("t a", "t b"), 1)]
        status, found = await self.ask("GET", "/tenants/shop/logs?most=2")
        self.assertEqual(status, 200, found)
        wanted = {"cursor": "life.3", "lines": ["t a", "t b"], "missed": 1}
        self.assertEqual(found, wanted | {"nodeID": tenant["nodeID"]})
        await self.ask("GET", "/tenants/shop/logs?after=life.3")
        questions = [wire.ReadLog(tenant["id"], "", 2), wire.ReadLog(tenant["id"], "life.3", 100)]
        self.assertEqual(self.asked, [(tenant["nodeID"], each) for each in questions])
        self.assertEqual(len(await self.trail("tenant.logs")), 1)

    async def test_refusals(self) -> None:
        """Too many lines, a cursor that is too long, and a node that is away are told."""
        await self.create("shop")
        for query, field in (
            ("most=0", "most"),
            ("most=501", "most"),
            ("after=" + "x" * 101, "after"),
        ):
            status, told = await self.ask("GET", f"/tenants/shop/logs?{query}")
            self.assertEqual((status, list(told["data"])), (400, [field]))
        self.assertEqual(self.asked, [])
        self.replies = [DeadlineExceeded("no session")]
        status, told = await self.ask("GET", "/tenants/shop/logs")
        self.assertEqual((status, told["data"]["code"]), (503, "unavailable"))


class SettingTests(AdminCase):
    async def test_logs_and_usage(self) -> None:
        """What is logged can be set, reaches the node's list, and nothing else is allowed; a quota
        below what a heartbeat reported is accepted and told."""
        tenant = await self.create("shop")
        self.assertEqual((tenant["logs"], tenant["overQuota"]), ("errors", {}))
        status, changed = await self.ask("PUT", "/tenants/shop", {"logs": "info"})
        self.assertEqual((status, changed["logs"]), (200, "info"))
        registry = self.world.consensus.registry
        (given,) = registry.assignments(tenant["nodeID"]).assignments
        self.assertEqual(given.logs.value, "info")
        status, told = await self.ask("PUT", "/tenants/shop", {"logs": "all"})
        self.assertEqual((status, list(told["data"])), (400, ["logs"]))
        self.assertIn("off, errors, info", told["message"])

        usage = wire.TenantUsage(
            tenant_id=tenant["id"], state="active", db_bytes=500, file_bytes=7, request_count=3
        )
        self.patch(self.world.liveness, "usage", lambda node, tenant: usage)
        quotas = {"quotas": {"maxDbBytes": 100, "maxFileBytes": 100}}
        status, changed = await self.ask("PUT", "/tenants/shop", quotas)
        self.assertEqual(status, 200, changed)
        self.assertEqual(changed["usage"], {"dbBytes": 500, "fileBytes": 7, "requests": 3})
        self.assertEqual(changed["overQuota"], {"maxDbBytes": {"quota": 100, "used": 500}})
