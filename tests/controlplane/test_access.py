"""API tokens, the audit trail, versions and request ids, over real HTTP."""

import hashlib
import json
from datetime import timedelta
from typing import Any
from unittest import mock

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import admin_json, api_tokens, audit
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_auth import ADMIN, MAX_ADDRESSES, AdminAuth, Principal
from pbcluster.controlplane.admin_caller import CLIENT, SIGNATURE, Caller, ClientMark
from pbcluster.controlplane.admin_forward import MARK
from pbcluster.controlplane.registry import Registry
from pbcluster.errors import Limited, Unauthorized
from pbcluster.records import Role
from tests.controlplane.test_admin_api import AdminCase
from tests.controlplane.test_registry import AT, T1, Log, code


class Tokens(AdminCase):
    async def make(self, name: str, role: str, **more: Any) -> dict[str, Any]:
        status, made = await self.ask("POST", "/api-tokens", {"name": name, "role": role} | more)
        self.assertEqual(status, 201, made)
        return dict(made)

    async def test_a_token_lives_and_dies(self) -> None:
        """It works at once, is listed without what it is known by, and after its revocation is as
        good as none; the registry, its snapshots and the log lines have its hash at most."""
        made = await self.make("ci", "operator")
        token = made["token"]
        self.assertEqual((await self.ask("GET", "/tenants", token=token))[0], 200)
        _, listed = await self.ask("GET", "/api-tokens")
        self.assertEqual(listed["items"], [{k: v for k, v in made.items() if k != "token"}])
        secret = token.partition(".")[2]
        registry = self.world.registry
        self.assertNotIn(secret.encode(), registry.to_bytes())
        self.assertNotIn(secret, "".join(self.logged))
        self.assertNotIn(secret, json.dumps(await self.ask("GET", "/audit")))
        status, revoked = await self.ask("DELETE", f"/api-tokens/{made['id']}")
        self.assertEqual((status, revoked["id"]), (200, made["id"]))
        self.assertEqual((await self.ask("GET", "/tenants", token=token))[0], 401)
        self.assertEqual((await self.ask("DELETE", f"/api-tokens/{made['id']}"))[0], 404)

    async def test_roles(self) -> None:
        """A viewer looks, an operator works with tenants, an admin does everything; who may not is
        told what it takes."""
        await self.create("shop")
        tokens = {role.value: (await self.make(role.value, role.value))["token"] for role in Role}
        for role, method, path, body, wanted in (
            ("viewer", "GET", "/tenants/shop", None, 200),
            ("viewer", "PUT", "/tenants/shop", {}, 403),
            ("viewer", "POST", "/tenants", {"name": "x"}, 403),
            ("viewer", "DELETE", "/tenants/shop?confirm=shop", None, 403),
            ("operator", "PUT", "/tenants/shop", {}, 200),
            ("operator", "POST", "/tokens", {"tenant": "shop"}, 201),
            ("operator", "POST", "/api-tokens", {"name": "x", "role": "admin"}, 403),
            ("operator", "GET", "/audit", None, 403),
            ("operator", "GET", "/members/snapshot", None, 403),
            ("admin", "GET", "/audit", None, 200),
            ("admin", "POST", "/api-tokens", {"name": "x", "role": "admin"}, 201),
        ):
            status, told = await self.ask(method, path, body, token=tokens[role])
            self.assertEqual(status, wanted, (role, method, path))
            if wanted == 403:
                self.assertEqual(told["data"]["role"], role)
                self.assertIn("needs", told["data"])

    async def test_a_token_ends(self) -> None:
        """After its time it is as good as none, and its name is free again."""
        made = await self.make("ci", "viewer", expiresIn=60)
        status, told = await self.ask("POST", "/api-tokens", {"name": "ci", "role": "viewer"})
        self.assertEqual((status, list(told["data"])), (409, ["name"]))
        auth = AdminAuth(
            "",
            lambda: self.world.registry.api_tokens,
            lambda: AT.replace(year=2999),
        )
        self.assertIsNone(auth.known(b"Bearer " + made["token"].encode()))

    async def test_refusals(self) -> None:
        """Bad input names its field."""
        for body, field in (
            ({"role": "viewer"}, "name"),
            ({"name": "", "role": "viewer"}, "name"),
            ({"name": "x"}, "role"),
            ({"name": "x", "role": "root"}, "role"),
            ({"name": "x", "role": "viewer", "expiresIn": 59}, "expiresIn"),
            ({"name": "x", "role": "viewer", "secret": "mine"}, "secret"),
        ):
            status, told = await self.ask("POST", "/api-tokens", body)
            self.assertEqual((status, list(told["data"])), (400, [field]), body)


class Trail(AdminCase):
    async def entries(self, query: str = "") -> list[dict[str, Any]]:
        status, listed = await self.ask("GET", f"/audit{query}")
        self.assertEqual(status, 200, listed)
        return list(listed["items"])

    async def test_who_what_when_and_from_where(self) -> None:
        """A change has its entry, with the address, the request's id and what came of it."""
        made = (await self.ask("POST", "/api-tokens", {"name": "ci", "role": "operator"}))[1]
        ids = {"x-request-id": "my-own.id_1"}
        status, tenant = await self.ask(
            "POST", "/tenants?wait=5", {"name": "shop"}, token=made["token"], **ids
        )
        self.assertEqual(status, 201)
        self.assertEqual(self.headers.getRawHeaders("x-request-id"), ["my-own.id_1"])
        await self.ask("POST", "/tenants", {"name": "shop"}, token=made["token"])
        refused, created, first = await self.entries()
        self.assertEqual(
            {k: created[k] for k in ("actor", "role", "address", "action", "target", "requestID")},
            {
                "actor": made["id"],
                "role": "operator",
                "address": "127.0.0.1",
                "action": "tenant.create",
                "target": tenant["id"],
                "requestID": "my-own.id_1",
            },
        )
        self.assertEqual((created["outcome"], refused["outcome"]), ("done", "conflict"))
        self.assertEqual((first["actor"], first["action"]), ("admin", "api-token.create"))
        self.assertTrue(any("my-own.id_1" in line for line in self.logged))

    async def test_every_change_has_an_entry(self) -> None:
        """One each, and none for a look or for a repetition."""
        await self.create("shop", superuser={"email": "a@example.com", "password": "top-secret-1"})
        key = {"idempotency-key": "k"}
        for method, path, body in (
            ("PUT", "/tenants/shop", {"metadata": {"note": "nobody may know this"}}),
            ("POST", "/tenants/shop/domains", {"domain": "shop.example.com"}),
            ("DELETE", "/tenants/shop/domains/shop.example.com", None),
            ("POST", "/tokens", {"tenant": "shop"}),
            ("POST", "/tokens/keys", {}),
            ("POST", "/tenants/shop/rename", {"name": "store"}),
            ("DELETE", "/tenants/store?confirm=store", None),
        ):
            status, told = await self.ask(method, path, body, **key)
            self.assertLess(status, 300, (path, told))
            await self.ask("GET", "/tenants")
        found = await self.entries("?sort=id")
        self.assertEqual(
            [entry["action"] for entry in found],
            [
                "tenant.create",
                "tenant.update",
                "tenant.domains",
                "tenant.domains",
                "platform-token.issue",
                "platform-token.rotate",
                "tenant.rename",
                "tenant.delete",
            ],
        )
        again = await self.ask("DELETE", "/tenants/store?confirm=store", **key)
        self.assertLess(again[0], 300)
        self.assertEqual(len(await self.entries()), len(found))
        everything = json.dumps(found)
        for secret in ("top-secret-1", "nobody may know this", "$2b$"):
            self.assertNotIn(secret, everything)
        self.assertEqual(
            [e["action"] for e in await self.entries("?filter=action ~ 'rename'&fields=action")],
            ["tenant.rename"],
        )


class Marked:
    """As much of a request as a mark needs."""

    method, uri = b"GET", b"/x"

    def __init__(self) -> None:
        self.headers: dict[bytes, str] = {}

    def getHeader(self, name: bytes) -> bytes | None:
        return self.headers[name].encode() if name in self.headers else None

    def getClientAddress(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 1)


class Exchanged(AdminCase):
    async def test_both_tokens_count_meanwhile(self) -> None:
        """The one that is exchanged and its successor; afterwards the former is nobody's."""
        old, new = (hashlib.sha256(word).hexdigest() for word in (b"old", b"new"))
        auth = AdminAuth(old)
        auth.use(new, [old.upper(), ""])
        for word in (b"old", b"new"):
            self.assertEqual(auth.known(b"Bearer " + word), Principal(ADMIN, Role.ADMIN))
        auth.use(new)
        self.assertIsNone(auth.known(b"Bearer old"))
        auth.use("")
        self.assertIsNone(auth.known(b"Bearer "))

    async def test_members_believe_each_other_meanwhile(self) -> None:
        """Whoever marks with the former secret is believed by who has the new one, until it is
        forgotten."""
        caller = Caller("10.1.2.3", "r1")
        former, exchanged, over = ClientMark("old"), ClientMark("old"), ClientMark("new")
        exchanged.use("new", ["old"])
        for sender, receiver, believed in (
            (former, exchanged, True),
            (exchanged, exchanged, True),
            (exchanged, over, True),
            (former, over, False),
        ):
            request: Any = Marked()
            request.headers = {k.encode(): v for k, v in sender.headers(request, caller).items()}
            found = receiver.address_of(request, "r1")
            self.assertEqual(found, "10.1.2.3" if believed else "127.0.0.1")


class From(AdminCase):
    async def test_an_address_is_a_members_word_only(self) -> None:
        """Who says himself from where he comes is not believed, whatever the signature."""
        for mark in (ClientMark(""), ClientMark("key")):
            self.api._mark = mark
            headers = {CLIENT: "10.9.8.7", SIGNATURE: "0" * 64, MARK.decode(): "member_2"}
            await self.ask("POST", "/tokens/keys", {}, **headers)
            _, listed = await self.ask("GET", "/audit?perPage=1")
            self.assertEqual(listed["items"][0]["address"], "127.0.0.1")

    async def test_a_request_id_that_cannot_be_one_is_replaced(self) -> None:
        """It goes into logs."""
        for given in ("a b", "x" * 65, "<script>", ""):
            await self.ask("GET", "/health", x_request_id=given)
            (told,) = self.headers.getRawHeaders("x-request-id") or [""]
            self.assertRegex(told, "^[0-9a-f]{32}$")


class Quotas(AdminCase):
    async def test_a_quota_below_what_is_used_is_taken_and_told(self) -> None:
        """200, and ``overQuota`` says which, with both figures; one that is above says nothing."""
        used = mock.Mock(db_bytes=5000, file_bytes=7, memory_bytes=0)
        await self.create("shop")
        quotas = {"maxDbBytes": 4000, "maxFileBytes": 8}
        status, told = await self.ask("PUT", "/tenants/shop", {"quotas": quotas})
        self.assertEqual((status, told["overQuota"]), (200, {}))
        over = admin_json.over_quota(self.world.registry.tenant("shop").quotas, used)
        self.assertEqual(over, {"maxDbBytes": {"quota": 4000, "used": 5000}})


class Versions(AdminCase):
    async def test_an_etag_is_a_version(self) -> None:
        """If-Match with what was read passes, with what is gone is 409, with nonsense 400."""
        created = await self.create("shop")
        await self.ask("GET", "/tenants/shop")
        (etag,) = self.headers.getRawHeaders("etag") or [""]
        self.assertEqual(etag, f'"{created["version"]}"')
        status, _ = await self.ask("PUT", "/tenants/shop", {"metadata": {"a": 1}}, if_match=etag)
        self.assertEqual(status, 200)
        for method, path, body in (
            ("PUT", "/tenants/shop", {"metadata": {}}),
            ("POST", "/tenants/shop/rename", {"name": "other"}),
            ("POST", "/tenants/shop/domains", {"domain": "a.example.com"}),
            ("DELETE", "/tenants/shop?confirm=shop", None),
        ):
            self.assertEqual((await self.ask(method, path, body, if_match=etag))[0], 409, path)
        status, told = await self.ask("PUT", "/tenants/shop", {}, if_match="W/x")
        self.assertEqual((status, list(told["data"])), (400, ["If-Match"]))
        status, _ = await self.ask("PUT", "/tenants/shop", {"version": 1}, if_match='"2"')
        self.assertEqual(status, 409)
        self.assertEqual((await self.ask("PUT", "/tenants/shop", {}, if_match="*"))[0], 200)

    async def test_a_deletion_is_confirmed(self) -> None:
        """Without ``confirm`` 400, with another's name 422; the tenant lives on."""
        await self.create("shop")
        status, told = await self.ask("DELETE", "/tenants/shop")
        self.assertEqual((status, list(told["data"])), (400, ["confirm"]))
        status, told = await self.ask("DELETE", "/tenants/shop?confirm=other")
        self.assertEqual((status, list(told["data"])), (422, ["confirm"]))
        self.assertEqual((await self.ask("GET", "/tenants/shop"))[0], 200)

    async def test_a_new_name_frees_the_old_one(self) -> None:
        """The id stays, the domain follows the name, the former name is another's to have, a taken
        one is refused; a repetition finds what it did."""
        first = await self.create("shop")
        await self.create("other")
        status, told = await self.ask("POST", "/tenants/shop/rename", {"name": "other"})
        self.assertEqual((status, list(told["data"])), (409, ["name"]))
        for _ in range(2):
            status, now = await self.ask(
                "POST", "/tenants/shop/rename", {"name": "store"}, idempotency_key="r"
            )
            self.assertEqual(status, 200, now)
        self.assertEqual((now["id"], now["domain"]), (first["id"], "store.localhost"))
        self.assertEqual((await self.ask("GET", "/tenants/shop"))[0], 404)
        self.assertNotEqual((await self.create("shop"))["id"], first["id"])


class Bounds(SynchronousTestCase):
    def test_wrong_tokens_are_counted_by_address(self) -> None:
        """429 after too many, until the window ends; other addresses are not concerned, and the
        table does not grow."""
        auth = AdminAuth("0" * 64)
        for _ in range(20):
            self.assertRaises(Unauthorized, auth.check, b"Bearer x", "a", 0.0)
        error = self.assertRaises(Limited, auth.check, b"Bearer x", "a", 1.0)
        self.assertEqual(error.data["retry_after_s"], 59.0)
        self.assertRaises(Unauthorized, auth.check, b"Bearer x", "b", 1.0)
        self.assertRaises(Unauthorized, auth.check, b"Bearer x", "a", 61.0)
        for number in range(MAX_ADDRESSES + 10):
            self.assertRaises(Unauthorized, auth.check, b"Bearer x", f"c{number}", 61.0)
        self.assertLessEqual(len(auth._failures), MAX_ADDRESSES)

    def test_the_trail_and_the_tokens_survive_a_snapshot(self) -> None:
        """Entries, in order and at most so many; API tokens, but not in what operators save."""
        log = Log()
        note = audit.note("admin", "admin", "::1", "r", "test.it", "t" * 500, "d" * 5000)
        log(c.CreateApiToken(AT, "apitoken_1", "ci", Role.VIEWER, b"x" * 32, "admin"))
        with mock.patch.object(audit, "MAX_ENTRIES", 3):
            log.registry.audit = audit.AuditTrail()
            for number in range(5):
                entry = c.Keyed(f"k{number}", c.Noted(AT + timedelta(seconds=number)), note)
                log.registry.apply(number + 2, c.decode(c.encode(entry)))
                log.entries.append(entry)
        again = Registry.from_bytes("example.com", log.registry.to_bytes())
        self.assertEqual([entry.id for entry in again.audit], [4, 5, 6])
        self.assertEqual([len(e.detail) for e in again.audit], [audit.MAX_DETAIL] * 3)
        self.assertEqual([token.id for token in again.api_tokens], ["apitoken_1"])
        self.assertEqual(again.to_bytes(), log.registry.to_bytes())
        saved = log.registry.image(for_operators=True).to_bytes()
        self.assertEqual(list(Registry.from_bytes("example.com", saved).api_tokens), [])

    def test_tokens_are_bounded_and_unique(self) -> None:
        """One name, one living token; what ended makes room."""
        log = Log()

        def make(number: int, name: str, **more: Any) -> str:
            made = c.CreateApiToken(AT, f"apitoken_{number}", name, Role.VIEWER, b"", "a", **more)
            return code(log(made))

        with mock.patch.object(api_tokens, "MAX_TOKENS", 2):
            self.assertEqual(make(1, "a"), "")
            self.assertEqual(make(2, "a"), "conflict")
            self.assertEqual(make(3, "b", expires=AT), "")
            self.assertEqual(make(4, "c"), "")
            self.assertEqual(make(5, "d"), "conflict")
        self.assertEqual(code(log(c.RevokeApiToken(AT, "apitoken_9"))), "not_found")

    def test_an_older_log_is_read(self) -> None:
        """Entries from before the audit trail have no note, and none is made up."""
        import msgspec

        old = msgspec.msgpack.encode(["k", ["DeleteTenant", AT, T1]])
        self.assertEqual(c.decode(old), c.Keyed("k", c.DeleteTenant(AT, T1)))
