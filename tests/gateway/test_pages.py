import json

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.pages import error_page, wants_html
from tests.gateway.fakes import head


class PageTests(SynchronousTestCase):
    def test_accept(self) -> None:
        """HTML only where it is preferred to JSON."""
        for accept, expected in {
            b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": True,
            b"text/html": True,
            b"*/*": False,
            b"application/json, text/html;q=0.5": False,
            b"application/json;q=0.4, text/html;q=0.5": True,
            b"text/html;q=nonsense": False,
            b"": False,
        }.items():
            self.assertEqual(wants_html(head(headers=[(b"Accept", accept)])), expected, accept)

    def test_json(self) -> None:
        """PocketBase's form; any origin may read it; Retry-After is rounded up."""
        page = error_page(head(), 503, 'not "ready"', "id", 0.2)
        self.assertEqual(
            json.loads(page.body), {"status": 503, "message": 'not "ready"', "data": {}}
        )
        headers = dict(page.headers)
        self.assertEqual(page.content_type, b"application/json")
        self.assertEqual(headers[b"Retry-After"], b"1")
        self.assertEqual(headers[b"X-Request-ID"], b"id")
        self.assertEqual(headers[b"Access-Control-Allow-Origin"], b"*")

    def test_html(self) -> None:
        """A browser gets a page in which nothing from outside is markup."""
        page = error_page(head(headers=[(b"Accept", b"text/html")]), 404, "<script>", "id")
        self.assertIn(b"&lt;script&gt;", page.body)
        self.assertNotIn(b"<script>", page.body)
        self.assertEqual(page.content_type, b"text/html; charset=utf-8")
        self.assertNotIn(b"Retry-After", dict(page.headers))
