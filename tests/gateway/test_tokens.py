"""Platform tokens at the gateway: known keys, questions for them, and whole requests."""

from typing import Any
from unittest import mock

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import platform_tokens, wire
from pbcluster.errors import Busy, Unauthorized, Unavailable
from pbcluster.gateway import token_keys, tokens
from pbcluster.gateway.token_keys import AGAIN_S, TIMEOUT_S, UNKNOWN_EVERY_S
from pbcluster.gateway.tokens import Tokens, UnknownKey
from pbcluster.platform_tokens import LEEWAY_S, Claims
from tests.gateway.fakes import FakeExchange, World, answer, fields_of, head, marked, route

A = 8090
ROUTE = route(hosts=("shop.localhost", "shop.example.com"))
POCKETBASE = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpZCI6IjEifQ.c2ln"


def private(kid: str) -> bytes:
    return kid.encode().ljust(32, b"k")


def key(kid: str, until: int = 0) -> wire.TokenKey:
    raw = Ed25519PrivateKey.from_private_bytes(private(kid)).public_key().public_bytes_raw()
    return wire.TokenKey(kid, raw, until)


def token(kid: str, now: float, tenant: str = ROUTE.tenant_id, lifetime_s: int = 3600) -> bytes:
    claims = Claims(tenant, int(now) + lifetime_s)
    return platform_tokens.sign(
        private(kid), kid, cluster_id="cluster_1", claims=claims, now=int(now), jti="j"
    ).encode()


class TokensTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1000.0
        self.tokens = Tokens("cluster_1", lambda: self.now)
        self.tokens.learn(wire.TokenKeys(5, (key("pb1"),)))

    def test_a_verified_token_is_remembered(self) -> None:
        """Its signature is checked once, and it still ends at its time."""
        made = token("pb1", self.now)
        for _ in range(3):
            self.assertEqual(self.tokens.tenant_of(made), ROUTE.tenant_id)
        self.assertEqual(self.tokens.verified, 1)
        self.now += 3600 + LEEWAY_S
        for _ in range(2):
            self.assertRaises(Unauthorized, self.tokens.tenant_of, made)

    def test_what_is_remembered_is_bounded(self) -> None:
        """The oldest go first."""
        with mock.patch.object(tokens, "MAX_VERIFIED", 2):
            made = [token("pb1", self.now, lifetime_s=60 + each) for each in range(3)]
            for each in made:
                self.tokens.tenant_of(each)
            self.tokens.tenant_of(made[2])
            self.assertEqual(self.tokens.verified, 3)
            self.tokens.tenant_of(made[0])
            self.assertEqual(self.tokens.verified, 4)

    def test_a_key_that_is_gone_verifies_nothing(self) -> None:
        """Not even what it verified before; an older answer brings it not back."""
        made = token("pb1", self.now)
        self.tokens.tenant_of(made)
        self.assertTrue(self.tokens.learn(wire.TokenKeys(7, (key("pb2"),))))
        self.assertFalse(self.tokens.learn(wire.TokenKeys(6, (key("pb1"),))))
        self.assertRaises(UnknownKey, self.tokens.tenant_of, made)
        self.assertEqual(self.tokens.tenant_of(token("pb2", self.now)), ROUTE.tenant_id)

    def test_a_retired_key_ends_by_itself(self) -> None:
        """After its time it verifies nothing, and nobody is asked for it."""
        self.tokens.learn(wire.TokenKeys(7, (key("pb1", 1100), key("pb2"))))
        made = token("pb1", self.now)
        self.tokens.tenant_of(made)
        self.now = 1100.0 + LEEWAY_S
        with self.assertRaises(Unauthorized) as caught:
            self.tokens.tenant_of(token("pb1", self.now))
        self.assertNotIsInstance(caught.exception, UnknownKey)

    def test_the_same_keys_again(self) -> None:
        """A newer answer with the same keys forgets nothing; a key of a wrong length is left
        out."""
        self.tokens.tenant_of(token("pb1", self.now))
        self.tokens.learn(wire.TokenKeys(9, (key("pb1"),)))
        self.tokens.tenant_of(token("pb1", self.now))
        self.assertEqual(self.tokens.verified, 1)
        self.tokens.learn(wire.TokenKeys(10, (wire.TokenKey("pb9", b"short"),)))
        self.assertFalse(self.tokens.knows("pb9"))


class QuestionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.cp = self.world.cp
        self.cp.token_keys = [key("pb1")]
        self.keys = self.world.token_keys
        self.addCleanup(self.keys.stop)

    def questions(self) -> list[wire.ListTokenKeys]:
        return [body for body in self.cp.asked if isinstance(body, wire.ListTokenKeys)]

    def learn(self, kid: str) -> Deferred[None]:
        return Deferred.fromCoroutine(self.keys.learn(kid))

    def test_start(self) -> None:
        """It asks at once, any member, again until there is an answer, and then no more."""
        self.cp.away = True
        self.keys.start()
        self.world.advance(TIMEOUT_S + 0.1)
        self.assertEqual(self.questions(), [wire.ListTokenKeys()])
        self.cp.away = False
        self.world.advance(AGAIN_S + 0.1)
        self.assertTrue(self.world.tokens.knows("pb1"))
        self.world.advance(60.0)
        self.assertEqual(len(self.questions()), 2)

    def test_a_broadcast(self) -> None:
        """An answer that is older than the broadcast is not enough."""
        self.keys.start()
        self.world.advance(0.1)
        self.cp.token_keys.append(key("pb2"))
        self.keys.changed(4)
        self.world.advance(0.1)
        self.assertEqual(len(self.questions()), 2)
        self.world.advance(AGAIN_S)
        self.cp.index = 4
        self.world.advance(AGAIN_S)
        self.assertEqual(len(self.questions()), 4)
        self.world.advance(10.0)
        self.keys.changed(4)
        self.world.advance(10.0)
        self.assertEqual(len(self.questions()), 4)

    def test_a_flood_of_unknown_keys(self) -> None:
        """Hundreds of made-up keys are one question a second, to the leader; all get their
        refusal."""
        self.keys.start()
        self.world.advance(5.0)
        before = len(self.questions())
        refused = 0
        for second in range(5):
            asked = [self.learn(f"pbx{second}{each}") for each in range(200)]
            self.world.advance(UNKNOWN_EVERY_S + 0.1)
            for each in asked:
                self.failureResultOf(each, UnknownKey)
                refused += 1
        self.assertEqual(refused, 1000)
        new = self.questions()[before:]
        self.assertLessEqual(len(new), 6)
        self.assertEqual(set(new), {wire.ListTokenKeys(newest=True)})

    def test_a_new_key(self) -> None:
        """Who brings a token of a key that was made a moment ago waits for the next answer."""
        self.keys.start()
        self.world.advance(5.0)
        self.failureResultOf(self._after(self.learn("pbx"), 0.1), UnknownKey)
        self.cp.index, self.cp.token_keys = 9, [key("pb1"), key("pb2")]
        asked = self.learn("pb2")
        self.assertNoResult(asked)
        self.world.advance(UNKNOWN_EVERY_S + 0.1)
        self.assertIsNone(self.successResultOf(asked))

    def _after(self, asked: Deferred[None], seconds: float) -> Deferred[None]:
        self.world.advance(seconds)
        return asked

    def test_bounds(self) -> None:
        """More than the bound are refused at once; who goes away makes room."""
        with mock.patch.object(token_keys, "MAX_WAITING", 2):
            first, second = self.learn("pbx"), self.learn("pby")
            self.failureResultOf(self.learn("pbz"), Busy)
            first.addErrback(lambda failure: None)
            first.cancel()
            third = self.learn("pbz")
            self.world.advance(3.0)
            for each in (second, third):
                self.failureResultOf(each, UnknownKey)

    def test_nobody_answers(self) -> None:
        """Whether an unknown key is good cannot be told then: 503, not 401; known ones stay."""
        self.keys.start()
        self.world.advance(5.0)
        self.cp.away = True
        asked = self.learn("pb2")
        self.world.advance(TIMEOUT_S + 0.1)
        self.assertEqual(self.failureResultOf(asked, Unavailable).value.status, 503)
        self.assertTrue(self.world.tokens.knows("pb1"))

    def test_stop(self) -> None:
        """Who waits is told; nothing is left on the clock."""
        self.cp.delay_s = 1.0
        asked = self.learn("pbx")
        later = self.learn("pby")
        self.world.advance(0.1)
        self.keys.stop()
        for each in (asked, later):
            self.failureResultOf(each, Unavailable, UnknownKey)


class RequestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World(trusted=("192.0.2.0/24",))
        self.world.cp.know(ROUTE)
        self.world.cp.know(route("other", tenant_id="tenant_other0000000"))
        self.world.cp.token_keys = [key("pb1")]
        self.world.node(A, answer())
        self.world.token_keys.start()
        self.world.advance(0.1)
        self.addCleanup(self.world.token_keys.stop)

    def token(self, **more: Any) -> bytes:
        return b"Bearer " + token("pb1", self.world.clock.seconds(), **more)

    def send(self, host: bytes, *headers: tuple[bytes, bytes]) -> FakeExchange:
        exchange = self.world.send(head(host=host, headers=headers))
        self.world.until(exchange)
        return exchange

    def sent(self, exchange: FakeExchange) -> dict[bytes, bytes]:
        plan = exchange.plans[-1]
        self.assertEqual((plan.host, plan.port), ("127.0.0.1", A))
        fields = fields_of(plan.lines)
        found = {name.lower(): value for name, value in fields}
        self.assertEqual(len(found), len(fields))
        return found

    def test_by_token(self) -> None:
        """A token names the tenant where the Host does not: the node gets the tenant's Host, the
        tenant's own token, and nothing of ours."""
        for host in (b"10.0.0.1", b"localhost", b"api.internal.example.com", b"[::1]"):
            exchange = self.send(
                host,
                (b"Authorization", self.token()),
                (b"X-PocketBase-Authorization", POCKETBASE),
            )
            self.assertEqual(exchange.status, 200, host)
            sent = self.sent(exchange)
            self.assertEqual(sent[b"host"], b"shop.localhost")
            self.assertEqual(sent[b"x-forwarded-host"], host + b":8080")
            self.assertEqual(sent[b"authorization"], POCKETBASE)
            self.assertNotIn(b"x-pocketbase-authorization", sent)
            self.assertNotIn(platform_tokens.PREFIX, b"".join(sent.values()))
        exchange = self.send(b"10.0.0.1", (b"Authorization", self.token()))
        self.assertNotIn(b"authorization", self.sent(exchange))

    def test_by_token_is_cached_as_by_host(self) -> None:
        """The second request asks nobody and waits for nothing."""
        field = (b"Authorization", self.token())
        self.send(b"10.0.0.1", field)
        asked = len(self.world.cp.asked)
        exchange = self.world.send(head(host=b"10.0.0.1", headers=(field,)))
        self.assertEqual(exchange.status, 200)
        self.assertEqual((len(self.world.cp.asked), self.world.tokens.verified), (asked, 1))

    def test_host_and_token(self) -> None:
        """Where they agree, the token is taken out and the Host stays; else it is 400 and no node
        sees it."""
        for host in (b"shop.localhost", b"shop.example.com"):
            exchange = self.send(host, (b"Authorization", self.token()))
            sent = self.sent(exchange)
            self.assertEqual(sent[b"host"], host + b":8080")
            self.assertNotIn(b"authorization", sent)
            exchange = self.send(host, (b"Authorization", self.token(tenant="tenant_other0000000")))
            self.assertEqual((exchange.status, exchange.plans), (400, []))

    def test_pocketbase_tokens_by_host(self) -> None:
        """They pass as they came, and nobody is asked for a key."""
        asked = self.world.token_keys.asked
        for value in (b"Bearer " + POCKETBASE, POCKETBASE):
            exchange = self.send(
                b"shop.localhost", (b"Authorization", value), (b"X-PocketBase-Authorization", b"a")
            )
            sent = self.sent(exchange)
            self.assertEqual(sent[b"authorization"], value)
            self.assertEqual(sent[b"x-pocketbase-authorization"], b"a")
        self.assertEqual(self.world.token_keys.asked, asked)

    def test_by_header(self) -> None:
        """X-Tenant-ID from a trusted network, as id or name; PocketBase's token stays where it is.
        Named by Connection it counts all the same, and goes no further."""
        for value in (b"shop", ROUTE.tenant_id.encode()):
            for more in ((), ((b"Connection", b"X-Tenant-ID"),)):
                exchange = self.send(
                    b"10.0.0.1", (b"X-Tenant-ID", value), (b"Authorization", POCKETBASE), *more
                )
                sent = self.sent(exchange)
                self.assertEqual(
                    (sent[b"host"], sent[b"authorization"]), (b"shop.localhost", POCKETBASE)
                )
                self.assertNotIn(b"x-tenant-id", sent)
        exchange = self.send(b"shop.localhost", (b"X-Tenant-ID", b"other"))
        self.assertEqual((exchange.status, exchange.plans), (400, []))
        exchange = self.send(b"10.0.0.1", (b"X-Tenant-ID", b"nobody"))
        self.assertEqual((exchange.status, exchange.plans), (404, []))

    def test_bad_tokens(self) -> None:
        """401 says so in the way of RFC 6750, without the token; one that is too long is 431."""
        expired = self.token(lifetime_s=-100)
        for host in (b"10.0.0.1", b"shop.localhost"):
            exchange = self.send(host, (b"Authorization", expired))
            self.assertEqual((exchange.status, exchange.plans), (401, []))
            assert exchange.answered is not None
            _, body, _, headers = exchange.answered
            self.assertEqual(headers[b"WWW-Authenticate"], b'Bearer error="invalid_token"')
            self.assertIn(b"expired", body)
            self.assertNotIn(expired[40:], body)
        exchange = self.send(b"10.0.0.1", (b"Authorization", b"Bearer " + b"x" * 8193))
        self.assertEqual(exchange.status, 431)

    def test_a_key_that_is_learned(self) -> None:
        """A token of a key made a moment ago is held until the key is known, then goes on; one of
        a key that is not there is 401; while nobody can tell it is 503."""
        self.world.cp.index, self.world.cp.token_keys = 7, [key("pb1"), key("pb2")]
        field = (b"Authorization", b"Bearer " + token("pb2", self.world.clock.seconds()))
        self.assertEqual(self.send(b"10.0.0.1", field).status, 200)
        field = (b"Authorization", b"Bearer " + token("pb3", self.world.clock.seconds()))
        self.assertEqual(self.send(b"10.0.0.1", field).status, 401)
        self.world.cp.away = True
        exchange = self.send(b"10.0.0.1", field)
        self.assertEqual(exchange.status, 503)
        gone = self.world.send(head(host=b"10.0.0.1", headers=(field,)))
        gone.go()
        self.world.advance(5.0)
        self.assertEqual(gone.status, 0)
        self.assertEqual(self.world.proxy.active, 0)

    def test_while_the_control_plane_is_away(self) -> None:
        """Known keys and routes go on, also at a host name of which nobody can say whose it is."""
        field = (b"Authorization", self.token())
        self.send(b"10.0.0.1", field)
        self.world.cp.away = True
        exchange = self.world.send(head(host=b"10.0.0.1", headers=(field,)))
        self.assertEqual(exchange.status, 200)
        self.assertEqual(self.send(b"api.internal.example.com", field).status, 200)

    def test_held_by_token(self) -> None:
        """A request that names its tenant by id is held, and looks again as soon as it moved."""
        self.world.node(A, marked(b"moved", 421, epoch=2))
        self.world.node(8091, answer())
        exchange = self.world.send(
            head(host=b"10.0.0.1", headers=((b"Authorization", self.token()),))
        )
        self.world.advance(0.5)
        self.assertEqual(exchange.status, 0)
        new = route(epoch=2, node_id="node_b", address="http://127.0.0.1:8091", hosts=ROUTE.hosts)
        self.world.cp.know(new)
        self.world.routes.put(new, 9, self.world.clock.seconds())
        self.world.proxy.moved(new)
        self.assertEqual(exchange.status, 200)

    def test_a_deleted_tenant(self) -> None:
        """Its tokens are good for nothing: 404."""
        field = (b"Authorization", self.token())
        self.send(b"10.0.0.1", field)
        self.world.cp.routes.clear()
        self.world.routes.forget(ROUTE.tenant_id, self.world.clock.seconds())
        exchange = self.world.send(head(host=b"10.0.0.1", headers=(field,)))
        self.assertEqual(exchange.status, 404)
