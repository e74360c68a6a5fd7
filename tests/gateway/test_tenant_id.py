from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.errors import CallerError, InvalidInput, NotFound, Unauthorized
from pbcluster.gateway.forwarding import Forwarder
from pbcluster.gateway.rewriting import rewritten
from pbcluster.gateway.tenant_id import Found, HostRule, TenantFinder, TenantKey, objection
from pbcluster.gateway.trusted import TrustedNetworks
from pbcluster.platform_tokens import PREFIX, TokenTooLong
from pbcluster.wire import LookupRoute
from tests.gateway.fakes import fields_of, head, route
from tests.web.heads import changed

TABLE = {
    b"shop.localhost": ("name", "shop"),
    b"my-shop.pb.example.com": ("name", "my-shop"),
    # The longest base domain decides.
    b"a.eu.pb.example.com": ("name", "a"),
    b"api.customer.com": ("domain", "api.customer.com"),
    b"customer.com": ("domain", "customer.com"),
    # Never a tenant:
    b"localhost": None,
    b"pb.example.com": None,
    b"eu.pb.example.com": None,
    b"a.b.localhost": None,
    b"10.0.1.47": None,
    b"[::1]": None,
    b"intranet": None,
    b"under_score.localhost": None,
    b"xn--bcher-kva.localhost": None,
    b"-bad.localhost": None,
    b"notlocalhost": None,
    b"10.localhost": ("name", "10"),
    b"1.2.3.4.localhost": None,
}

TENANT = "tenant_shop00000000"
OTHER = "tenant_other0000000"


class FakeTokens:
    """Knows one token a tenant: what ``token_of`` makes."""

    def __init__(self) -> None:
        self.asked = 0

    def tenant_of(self, token: bytes) -> str:
        self.asked += 1
        prefix, _, tenant = token.partition(b".")
        if prefix != PREFIX:
            raise Unauthorized("not valid")
        return tenant.decode()


def token_of(tenant: str) -> bytes:
    return b"Bearer " + PREFIX + b"." + tenant.encode()


HOST = {"name": b"shop.localhost", "domain": b"shop.example.com", "none": b"10.0.0.1"}
POCKETBASE = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpZCI6IjEifQ.c2ln"


class HostRuleTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Each host gives the key of the table, and no other."""
        rule = HostRule(("localhost", "pb.example.com", "eu.pb.example.com"))
        for host, expected in TABLE.items():
            key = rule.key_of(host)
            self.assertEqual(None if key is None else (key.kind, key.value), expected, host)

    def test_question(self) -> None:
        """A key becomes the look-up that names exactly this one thing."""
        self.assertEqual(
            TenantKey("domain", "a.b").question(place=True, min_epoch=4),
            LookupRoute(domain="a.b", place=True, min_epoch=4),
        )


def said(found: Found | None) -> tuple[object, ...] | None:
    """All that it says."""
    return None if found is None else (found.key, found.by_host, found.others, found.token)


class FinderCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.tokens = FakeTokens()
        trusted = TrustedNetworks(("192.0.2.0/24", "fd00::/8"))
        self.finder = TenantFinder(("localhost",), self.tokens, trusted)

    def find(
        self, host: bytes, *headers: tuple[bytes, bytes], peer: str = "192.0.2.7"
    ) -> Found | None:
        return self.finder.find(changed(head(host=host, headers=headers), peer_host=peer))


class PrecedenceTests(FinderCase):
    def test_every_combination(self) -> None:
        """Host, X-Tenant-ID and token, each there or not: the first decides, and all others must
        name the same tenant."""
        for host in HOST:
            for named in (None, "shop", TENANT, OTHER, "other"):
                for bearer in (None, TENANT, OTHER):
                    self.check_one(host, named, bearer)

    def check_one(self, host: str, named: str | None, bearer: str | None) -> None:
        headers = []
        keys: list[TenantKey] = []
        if host != "none":
            value = "shop" if host == "name" else "shop.example.com"
            keys.append(TenantKey("name" if host == "name" else "domain", value))
        if named is not None:
            headers.append((b"x-Tenant-ID", named.encode()))
            keys.append(TenantKey("tenant_id" if "_" in named else "name", named))
        if bearer is not None:
            headers.append((b"AUTHORIZATION", token_of(bearer)))
            keys.append(TenantKey("tenant_id", bearer))
        found = self.find(HOST[host], *headers)
        told = (host, named, bearer)
        if not keys:
            self.assertIsNone(found, told)
            return
        assert found is not None
        self.assertEqual((found.key, found.others), (keys[0], tuple(keys[1:])), told)
        self.assertEqual((found.by_host, found.token), (host != "none", bearer is not None), told)
        decided = route("shop", hosts=("shop.localhost", "shop.example.com"))
        if keys[0].value in ("other", OTHER):
            decided = route("other", tenant_id=OTHER)
        agree = all(key.names(decided) for key in keys)
        refused = objection(found, decided)
        self.assertEqual(refused is None, agree, told)
        if refused is not None:
            self.assertEqual(refused.status, 400, told)

    def test_a_domain_that_is_no_tenants(self) -> None:
        """A host name that is nobody's custom domain says nothing: what else is there decides. A
        name below the base domain decides even if nobody has it."""
        found = self.find(
            HOST["domain"], (b"X-Tenant-ID", b"shop"), (b"Authorization", token_of(TENANT))
        )
        assert found is not None
        then = found.otherwise()
        assert then is not None
        self.assertEqual(
            said(then), (TenantKey("name", "shop"), False, (TenantKey("tenant_id", TENANT),), True)
        )
        self.assertIsNone(then.otherwise())
        found = self.find(b"nobody.localhost", (b"X-Tenant-ID", b"shop"))
        assert found is not None
        self.assertIsNone(found.otherwise())

    def test_a_host_that_went_to_another(self) -> None:
        """What a look-up by a former domain or name leads to is 404, never another's tenant."""
        moved = route("store", hosts=("store.localhost", "new.example.com"))
        for host in ("shop.localhost", "shop.example.com"):
            found = self.find(host.encode())
            assert found is not None
            refused = objection(found, moved)
            self.assertIsInstance(refused, NotFound)


class AuthorizationTests(FinderCase):
    def test_pocketbase_tokens_by_host(self) -> None:
        """Where Host or X-Tenant-ID name the tenant, no Authorization but one with a token of ours
        is looked at, however odd it is."""
        odd = (
            b"Bearer " + POCKETBASE,
            POCKETBASE,
            b"Basic dTpw",
            b"Bearer " + b"x" * 9000,
            b"",
            b"Bearer",
        )
        for value in odd:
            for host, named in ((HOST["name"], ()), (HOST["none"], ((b"X-Tenant-ID", b"shop"),))):
                found = self.find(host, *named, (b"Authorization", value))
                assert found is not None
                self.assertEqual((found.key.value, found.token), ("shop", False), value[:40])
        twice = self.find(HOST["name"], (b"Authorization", b"a"), (b"authorization", POCKETBASE))
        self.assertEqual(said(twice), said(Found(TenantKey("name", "shop"))))
        self.assertEqual(self.tokens.asked, 0)

    def test_tokens_where_nothing_else_names_a_tenant(self) -> None:
        """Then a bearer token must be one of ours; another scheme names no tenant."""
        for value, raised in (
            (b"Bearer " + POCKETBASE, Unauthorized),
            (b"bearer x", Unauthorized),
            (b"Bearer " + b"x" * (8 * 1024 + 1), TokenTooLong),
            (PREFIX + b".x", Unauthorized),
        ):
            with self.assertRaises(raised):
                self.find(HOST["none"], (b"Authorization", value))
        for value in (POCKETBASE, b"Basic dTpw", b""):
            self.assertIsNone(self.find(HOST["none"], (b"Authorization", value)))

    def test_ours_never_passes_in_any_form(self) -> None:
        """A token of ours is found among several fields, in any spelling, and is then taken out or
        the request refused; it never goes to the Host's tenant."""
        ours = token_of(TENANT)
        for fields in (
            ((b"Authorization", b"Bearer " + POCKETBASE), (b"authorization", ours)),
            ((b"Authorization", ours[7:]),),
            ((b"Authorization", b"Basic " + ours[7:]),),
            ((b"Authorization", b"Bearer x, " + ours),),
            ((b"Authorization", ours), (b"X-PocketBase-Authorization", ours)),
            ((b"Authorization", ours), *((b"x-pocketbase-authorization", b"a"),) * 2),
        ):
            with self.assertRaises(CallerError):
                self.find(HOST["name"], *fields)
        found = self.find(HOST["name"], (b"authorization", b"bearer   " + ours[7:]))
        assert found is not None
        self.assertTrue(found.token)


class TenantIdHeaderTests(FinderCase):
    def test_only_from_trusted_networks(self) -> None:
        """Elsewhere it is as if it were not there; an IPv4 address may come in mapped."""
        field = (b"X-Tenant-ID", b"shop")
        for peer in ("192.0.2.255", "::ffff:192.0.2.1", "fd12::1"):
            self.assertIsNotNone(self.find(HOST["none"], field, peer=peer), peer)
        for peer in ("192.0.3.1", "::1", "::ffff:192.0.3.1", "", "junk", "fe80::1%eth0"):
            self.assertIsNone(self.find(HOST["none"], field, peer=peer), peer)

    def test_bad_values(self) -> None:
        """Neither id nor name, or twice: 400 that names the field, whatever the Host is."""
        for host in HOST.values():
            for values in (
                (b"Shop",),
                (b"",),
                (b"a.b",),
                (b"../x",),
                (b"shop", b"shop"),
                (b"\xff",),
            ):
                with self.assertRaises(InvalidInput) as caught:
                    self.find(host, *((b"X-Tenant-ID", value) for value in values))
                self.assertEqual(caught.exception.data["field"], "X-Tenant-ID")

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(
                    [
                        b"X-Tenant-ID",
                        b"x-tenant-id",
                        b"X-TENANT-ID",
                        b"X-Tenant-Id",
                        b"X-Tenant_ID",
                        b"Forwarded",
                        b"X-Forwarded-For",
                        b"X-Real-IP",
                        b"X-Forwarded-Host",
                        b"X-PBCluster-Tenant",
                        b"Connection",
                        b"Via",
                    ]
                ),
                st.sampled_from(
                    [
                        b"other",
                        OTHER.encode(),
                        b"192.0.2.7",
                        b"other.localhost",
                        b"X-Tenant-ID",
                        b"for=192.0.2.7",
                        b"\xff\x00",
                        b"",
                    ]
                ),
            ),
            max_size=12,
        ),
        st.sampled_from(sorted(HOST.values())),
    )
    def test_untrusted_headers_choose_nothing(
        self, headers: list[tuple[bytes, bytes]], host: bytes
    ) -> None:
        """No spelling, number or mixture of header fields from an untrusted peer changes which
        tenant is found, or that none is; and none of it reaches the node."""
        finder = TenantFinder(("localhost",), FakeTokens(), TrustedNetworks(("192.0.2.0/24",)))
        request = changed(head(host=host, headers=headers), peer_host="203.0.113.5")
        self.assertEqual(said(finder.find(request)), said(HostRule(("localhost",)).found(host)))
        sent = fields_of(Forwarder("gateway_1", b"key").lines(request, route(), "0" * 32, 1))
        self.assertNotIn(b"x-tenant-id", [name.lower() for name, _ in sent])


class RewritingTests(SynchronousTestCase):
    HEADERS = (
        (b"Host", b"10.0.0.1:8080"),
        (b"authorization", b"Bearer ours"),
        (b"X-POCKETBASE-authorization", b"their own"),
        (b"Accept", b"*/*"),
    )

    def test_token(self) -> None:
        """The platform token goes, the tenant's own takes its place; the Host is the tenant's."""
        self.assertEqual(
            rewritten(self.HEADERS, host="shop.localhost", token=True),
            [(b"Host", b"shop.localhost"), (b"Authorization", b"their own"), (b"Accept", b"*/*")],
        )

    def test_host_only(self) -> None:
        """Without a platform token both fields pass as they are."""
        changed = rewritten(self.HEADERS, host="shop.localhost", token=False)
        self.assertEqual(changed, [(b"Host", b"shop.localhost"), *self.HEADERS[1:]])
        self.assertEqual(rewritten(self.HEADERS, host="", token=False), list(self.HEADERS))
