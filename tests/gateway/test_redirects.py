"""Which requests without TLS are sent to https, and where to."""

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.redirects import Redirects
from tests.gateway.fakes import head
from tests.web.heads import changed


class RedirectTests(SynchronousTestCase):
    def location(self, which: str, port: int = 443, **request: Any) -> bytes | None:
        redirects = Redirects(which, lambda host: host == "shop.localhost", lambda: port)
        return redirects.location(changed(head(), **request))

    def test_table(self) -> None:
        """Method, path and query stay; only hosts with a certificate are `known`; TLS, health
        questions and ACME's challenges are served as they are."""
        shop, other = {"host": b"shop.localhost"}, {"host": b"other.localhost"}
        path = {"target": b"/a/%2e%2e//b?x=1&y=//z"}
        there = b"https://shop.localhost/a/%2e%2e//b?x=1&y=//z"
        health, acme = {"target": b"/api/health?x"}, {"target": b"/.well-known/acme-challenge/t"}
        cases: list[tuple[str, dict[str, Any], bytes | None]] = [
            ("off", shop | path, None),
            ("known", shop | path, there),
            ("known", shop | path | {"method": b"POST"}, there),
            ("known", shop | path | {"secure": True}, None),
            ("known", other | path, None),
            ("all", other | {"target": b"/"}, b"https://other.localhost/"),
            ("all", {"host": b"[::1]", "target": b"/"}, b"https://[::1]/"),
            ("all", shop | {"method": b"OPTIONS", "target": b"*"}, b"https://shop.localhost/"),
            ("all", shop | health, None),
            ("all", shop | health | {"method": b"HEAD"}, None),
            ("all", shop | health | {"method": b"POST"}, b"https://shop.localhost/api/health?x"),
            ("all", shop | acme, None),
            ("all", shop | {"target": b"/api/healthy"}, b"https://shop.localhost/api/healthy"),
        ]
        for which, request, expected in cases:
            self.assertEqual(self.location(which, **request), expected, (which, request))

    def test_port(self) -> None:
        """Another port than 443 is named."""
        found = self.location("all", 8443, host=b"shop.localhost", target=b"/x")
        self.assertEqual(found, b"https://shop.localhost:8443/x")
