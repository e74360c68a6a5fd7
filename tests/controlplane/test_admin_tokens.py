"""Platform tokens and custom domains over the admin API, and what gateways are told of keys."""

import jwt
import treq
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pbcluster import platform_tokens, wire
from tests.controlplane.test_admin_api import AdminCase


class TokenTests(AdminCase):
    async def issue(self, tenant: str = "shop", **more: object) -> dict[str, str]:
        status, issued = await self.ask("POST", "/tokens", {"tenant": tenant} | more)
        self.assertEqual(status, 201, issued)
        return issued

    def keys(self) -> tuple[wire.TokenKey, ...]:
        return self.world.consensus.registry.token_keys.verifying()

    async def test_issue(self) -> None:
        """A token names the tenant by its id, ends when asked for, and verifies by the key that
        gateways are told; it is in no log line."""
        created = await self.create("shop")
        first = await self.issue()
        second = await self.issue(created["id"], expiresIn=86400)
        (key,) = self.keys()
        self.assertEqual({first["kid"], second["kid"]}, {key.kid})
        public = Ed25519PublicKey.from_public_bytes(key.public)
        for issued, lifetime_s in ((first, 3600), (second, 86400)):
            token = issued["token"].encode()
            self.assertEqual(platform_tokens.kid_of(token), key.kid)
            payload = jwt.decode(token, options={"verify_signature": False})
            self.assertEqual(payload["exp"] - payload["iat"], lifetime_s)
            claims = platform_tokens.verify(
                public, token, cluster_id="cluster_1", now_s=payload["iat"]
            )
            self.assertEqual(claims.tenant_id, created["id"])
            self.assertNotIn(issued["token"][40:], "".join(self.logged))
        current = self.world.consensus.registry.token_keys.current
        assert current is not None
        assert current.tokens_until is not None
        self.assertGreaterEqual(current.tokens_until.timestamp(), payload["exp"])
        self.assertEqual(self.headers.getRawHeaders("cache-control"), ["no-store"])

    async def test_refusals(self) -> None:
        """Bad input names its field; an unknown tenant is 404; without the admin token: 401."""
        await self.create("shop")
        for body, field in (
            ({}, "tenant"),
            ({"tenant": ""}, "tenant"),
            ({"tenant": 7}, "tenant"),
            ({"tenant": "shop", "expiresIn": 59}, "expiresIn"),
            ({"tenant": "shop", "expiresIn": 90 * 86400 + 1}, "expiresIn"),
            ({"tenant": "shop", "expiresIn": "1h"}, "expiresIn"),
            ({"tenant": "shop", "alg": "none"}, "alg"),
        ):
            status, told = await self.ask("POST", "/tokens", body)
            self.assertEqual((status, list(told["data"])), (400, [field]), body)
        self.assertEqual((await self.ask("POST", "/tokens", {"tenant": "nobody"}))[0], 404)
        for method, path in (
            ("POST", "/tokens"),
            ("GET", "/tokens/keys"),
            ("POST", "/tokens/keys"),
        ):
            self.assertEqual((await self.ask(method, path, {}, token=None))[0], 401)
        self.assertEqual((await self.ask("POST", "/tokens/keys", {"now": 1}))[0], 400)
        self.assertEqual(self.keys(), ())

    async def test_rotation(self) -> None:
        """Former keys stay as long as their tokens, or end at once; no answer has more of a key
        than its id and its times."""
        await self.create("shop")
        first = (await self.issue())["kid"]
        status, made = await self.ask("POST", "/tokens/keys", idempotency_key="r1")
        self.assertEqual(status, 201)
        again = await self.ask("POST", "/tokens/keys", idempotency_key="r1")
        self.assertEqual(again, (201, made))
        status, listed = await self.ask("GET", "/tokens/keys")
        self.assertEqual(
            [(key["kid"], key["status"]) for key in listed["items"]],
            [(made["kid"], "signs"), (first, "verifies")],
        )
        fields = {"kid", "status", "created", "retired", "tokensUntil"}
        self.assertEqual({frozenset(key) for key in (*listed["items"], made)}, {frozenset(fields)})
        self.assertEqual((await self.issue())["kid"], made["kid"])
        status, last = await self.ask("POST", "/tokens/keys", {"now": True})
        self.assertEqual([key.kid for key in self.keys()], [last["kid"]])

    async def test_snapshot(self) -> None:
        """The file of ``members snapshot`` has no key in it."""
        await self.create("shop")
        await self.issue()
        current = self.world.consensus.registry.token_keys.current
        assert current is not None
        registry = self.world.consensus.registry
        self.assertIn(current.private, registry.to_bytes())
        response = await treq.get(
            f"http://127.0.0.1:{self.port}/api/cp/members/snapshot",
            headers={"authorization": "Bearer the-admin-token"},
            agent=self.agent,
        )
        content = await response.content()
        self.assertEqual(response.code, 200)
        self.assertNotIn(current.private, content)
        self.assertNotIn(current.kid.encode(), content)


class DomainTests(AdminCase):
    async def test_set(self) -> None:
        """PUT sets all custom domains; they are shown, and another tenant cannot have them."""
        await self.create("shop")
        await self.create("other")
        status, shown = await self.ask(
            "PUT", "/tenants/shop", {"customDomains": ["Shop.Example.com", "shop.org"]}
        )
        self.assertEqual(status, 200, shown)
        self.assertEqual(shown["customDomains"], ["shop.example.com", "shop.org"])
        self.assertEqual(shown["hosts"][1:], ["shop.example.com", "shop.org"])
        status, told = await self.ask("PUT", "/tenants/other", {"customDomains": ["shop.org"]})
        self.assertEqual((status, list(told["data"])), (409, ["customDomains"]))
        version = shown["version"]
        status, shown = await self.ask(
            "PUT", "/tenants/shop", {"customDomains": [], "version": version}
        )
        self.assertEqual((status, shown["customDomains"]), (200, []))
        status, _ = await self.ask(
            "PUT", "/tenants/shop", {"customDomains": [], "version": version}
        )
        self.assertEqual(status, 409)

    async def test_refusals(self) -> None:
        """What is no custom domain is refused by its field with what is allowed."""
        await self.create("shop")
        base = self.world.consensus.registry.base_domain
        for value, wanted in (
            ("a.com", 400),
            (["10.0.0.1"], 400),
            (["a"], 400),
            ([1], 400),
            ({"a": "b"}, 400),
            ([base], 400),
            ([f"x.{base}"], 422),
        ):
            status, told = await self.ask("PUT", "/tenants/shop", {"customDomains": value})
            self.assertEqual((status, list(told["data"])), (wanted, ["customDomains"]), value)
