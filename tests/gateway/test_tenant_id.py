from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.tenant_id import HostRule, TenantFinder, TenantKey
from pbcluster.wire import LookupRoute
from tests.gateway.fakes import head

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


class HostRuleTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Each host gives the key of the table, and no other."""
        rule = HostRule(("localhost", "pb.example.com", "eu.pb.example.com"))
        for host, expected in TABLE.items():
            self.assertEqual(rule(head(host=host)), expected, host)
            # Remembered hosts give the same.
            self.assertEqual(rule(head(host=host)), expected, host)

    def test_rules_in_order(self) -> None:
        """The first rule that knows decides; later ones are asked when it does not."""
        host = HostRule(("localhost",))
        finder = TenantFinder((host, lambda _: TenantKey("tenant_id", "tenant_00000000")))
        self.assertEqual(finder.find(head()), ("name", "shop"))
        self.assertEqual(finder.find(head(host=b"10.0.0.1")), ("tenant_id", "tenant_00000000"))
        self.assertIsNone(TenantFinder((host,)).find(head(host=b"10.0.0.1")))

    def test_question(self) -> None:
        """A key becomes the look-up that names exactly this one thing."""
        self.assertEqual(
            TenantKey("domain", "a.b").question(place=True, min_epoch=4),
            LookupRoute(domain="a.b", place=True, min_epoch=4),
        )
