"""Health and figures."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.status_page import Metrics, StatusPage
from pbcluster.web.interfaces import Exchange, RequestHead


class _Exchange(Exchange):
    def __init__(self, method: bytes, target: bytes) -> None:
        self.head = RequestHead(method, target, b"h", (), None, False, "127.0.0.1")
        self.answer: tuple[int, bytes] = (0, b"")

    def respond(self, status: int, body: bytes, **_: object) -> None:
        self.answer = (status, body)


class StatusPageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.metrics = Metrics()
        self.reasons: list[str] = []
        self.page = StatusPage(
            not_ready=lambda: self.reasons,
            metrics=lambda: self.metrics.show({"active": 2}, {"streams": 3}),
        )

    def ask(self, target: bytes, method: bytes = b"GET") -> tuple[int, bytes]:
        exchange = _Exchange(method, target)
        self.page.handle(exchange)
        return exchange.answer

    def test_health_and_readiness(self) -> None:
        """A node that waits for S3 lives, is not ready, and says why."""
        self.assertEqual(self.ask(b"/healthz")[0], 200)
        self.assertEqual(self.ask(b"/livez")[0], 200)
        self.assertEqual(self.ask(b"/readyz?x=1")[0], 200)
        self.reasons = ["waiting for S3"]
        status, body = self.ask(b"/readyz")
        self.assertEqual((status, json.loads(body)["reasons"]), (503, ["waiting for S3"]))
        self.assertEqual(self.ask(b"/healthz")[0], 200)
        self.assertEqual(self.ask(b"/livez")[0], 200)

    def test_metrics(self) -> None:
        """Every figure that is counted is shown."""
        self.metrics.loaded("warm", 0.02)
        self.metrics.load_failed("S3Unavailable")
        self.metrics.synced(0.007)
        self.metrics.acknowledged(0.01)
        self.metrics.withheld("sync_failed")
        self.metrics.proof("lease")
        self.metrics.fenced()
        self.metrics.answered(421)
        status, body = self.ask(b"/metrics")
        text = body.decode()
        self.assertEqual(status, 200)
        for line in (
            'pbcluster_node_load_seconds_count{how="warm"} 1.0',
            'pbcluster_node_load_failures_total{cause="S3Unavailable"} 1.0',
            "pbcluster_node_sync_seconds_count 1.0",
            "pbcluster_node_ack_wait_seconds_count 1.0",
            'pbcluster_node_withheld_acks_total{reason="sync_failed"} 1.0',
            'pbcluster_node_proofs_total{basis="lease"} 1.0',
            "pbcluster_node_fences_total 1.0",
            'pbcluster_node_own_answers_total{status="421"} 1.0',
            'pbcluster_node_tenants{state="active"} 2.0',
            "pbcluster_node_streams 3.0",
        ):
            self.assertIn(line, text)

    def test_anything_else(self) -> None:
        """Other paths and methods are refused."""
        self.assertEqual(self.ask(b"/")[0], 404)
        self.assertEqual(self.ask(b"/metrics", b"POST")[0], 405)
