"""The gateway's numbers, as they were promised: other tests take them from the code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.config import GatewayConfig
from pbcluster.gateway import breaker, holds, passage, retries, routes
from pbcluster.node.ports import LIMITS as NODE_LIMITS
from pbcluster.web import limits, pool

KIB, MIB = 1024, 1024 * 1024


class NumbersTests(SynchronousTestCase):
    def check(self, of: Any, **promised: Any) -> None:
        found = {name: getattr(of, name) for name in promised}
        self.assertEqual(found, promised, getattr(of, "__name__", ""))

    def test_breakers(self) -> None:
        """Five failures; 2 s doubling to 15 s, ±20 %; one probe of 2 s, two successes, a ramp of
        10 s; three tenants in 10 s; health each 2 s within 1 s, three missing answers."""
        self.check(
            breaker,
            FAILURES_TO_OPEN=5,
            OPEN_S=2.0,
            OPEN_MAX_S=15.0,
            JITTER=0.2,
            PROBE_S=2.0,
            SUCCESSES_TO_CLOSE=2,
            RAMP_S=10.0,
            SLOW_TENANTS=3,
            SLOW_S=10.0,
            CHECK_S=2.0,
            CHECK_TIMEOUT_S=1.0,
            MISSES_TO_OPEN=3,
        )

    def test_retries(self) -> None:
        """Two more attempts, 25 to 250 ms of jitter, three or a fifth of what is under way; bodies
        of 64 KiB, 32 MiB in all."""
        self.check(
            retries,
            MAX_REPEATS=2,
            PAUSE_MIN_S=0.025,
            PAUSE_MAX_S=0.25,
            BUDGET_MIN=3,
            BUDGET_SHARE=0.2,
            SAFE_METHODS={b"GET", b"HEAD", b"OPTIONS"},
        )
        self.check(limits, REPLAY_BYTES=64 * KIB, REPLAY_TOTAL_BYTES=32 * MIB)

    def test_holds_and_routes(self) -> None:
        """Of a tenant 1,000 wait, 10,000 in all, 30 s; routes are fresh for 5 minutes, "not found"
        is believed for 3 s and remembered for a bounded number."""
        self.check(holds, MAX_PER_TENANT=1_000, MAX_TOTAL=10_000)
        self.check(routes, ABSENT_S=3.0, MAX_ABSENT=10_000)

    def test_connections(self) -> None:
        """Connecting takes 1 s at most; 64 idle connections a node are kept, for less time than the
        node keeps them; 64 KiB wait on one side before the other is paused."""
        self.check(passage, CONNECT_TIMEOUT_S=1.0)
        self.check(pool, MAX_IDLE_PER_UPSTREAM=64)
        self.assertLess(pool.IDLE_S, NODE_LIMITS.keep_alive_s)
        self.check(limits, HIGH_WATER_BYTES=64 * KIB)

    def test_requests(self) -> None:
        """Request lines of 8 KiB, fields of 16 KiB, 100 of them; keep-alive 60 s."""
        self.check(limits.HeadLimits(), line_bytes=8 * KIB, fields_bytes=16 * KIB, fields=100)
        self.check(limits.Limits(), keep_alive_s=60.0)

    def test_defaults_of_settings(self) -> None:
        """Heads in 10 s, bodies without 30 s of silence and of 32 MiB; the drain's 5 and 30 s; the
        loop's 100 ms and 80 % of the descriptors."""
        defaults = {field.name: field.default for field in attrs.fields(GatewayConfig)}
        self.check(
            SimpleNamespace(**defaults),
            header_timeout_s=10.0,
            body_idle_s=30.0,
            max_body_bytes=32 * MIB,
            hold_s=30.0,
            route_ttl_s=300.0,
            drain_ready_s=5.0,
            drain_s=30.0,
            shed_loop_lag_s=0.1,
            shed_descriptors=0.8,
        )
