"""A tenant's quotas: what passes, what a change does, what is forgotten."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.quotas import SWEEP_AT, Defaults, Quotas, Use
from pbcluster.rates import Refusal
from pbcluster.records import TenantQuotas

NOW = 1_764_000_000.0
T, U = "tenant_aaaaaaaa", "tenant_bbbbbbbb"
DEFAULTS = Defaults(requests_per_second=100, burst=150, requests=50, event_streams=20)


def own(**quotas: float) -> TenantQuotas:
    return TenantQuotas(**quotas)  # type: ignore[arg-type]


class QuotaTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.quotas = Quotas(DEFAULTS, max_held=2)

    def enter(self, quotas: TenantQuotas | None, now: float = NOW, tenant: str = T) -> Use:
        use = self.quotas.enter(tenant, quotas, now)
        assert isinstance(use, Use), use
        return use

    def refused(self, quotas: TenantQuotas, now: float = NOW, tenant: str = T) -> Refusal:
        refusal = self.quotas.enter(tenant, quotas, now)
        assert isinstance(refusal, Refusal), refusal
        return refusal

    def passed(self, quotas: TenantQuotas, now: float = NOW, tenant: str = T) -> int:
        """How many requests pass one after the other."""
        count = 0
        while isinstance(use := self.quotas.enter(tenant, quotas, now), Use):
            use.end()
            count += 1
        return count

    def test_what_counts(self) -> None:
        """The tenant's own number, else the node's; a rate of its own has two seconds' burst."""
        for quotas, burst in (
            (own(), 150),
            (own(requests_per_second=7), 14),
            (own(requests_per_second=7, burst=3), 3),
            (own(requests_per_second=0.1), 1),
            (own(burst=9), 9),
        ):
            self.quotas = Quotas(DEFAULTS)
            self.assertEqual(self.passed(quotas), burst, quotas)
        self.assertEqual(self.passed(own(requests_per_second=7), NOW + 1, U), 14)

    def test_no_limits(self) -> None:
        """Defaults of 0 limit nothing."""
        self.quotas = Quotas(Defaults())
        uses = [self.enter(own()) for _ in range(5_000)]
        self.assertTrue(all(use.become_stream() is None for use in uses))

    def test_rate(self) -> None:
        """The refusal says when to come back, and a neighbour's bucket is another one."""
        quotas = own(requests_per_second=2, burst=4)
        self.assertEqual(self.passed(quotas), 4)
        refusal = self.refused(quotas)
        self.assertEqual((refusal.reason, refusal.status), ("rate", 429))
        self.assertEqual((refusal.limit, refusal.retry_after), (4, 1))
        self.assertEqual(self.passed(quotas, tenant=U), 4)
        self.assertEqual(self.passed(quotas, NOW - 86_400), 0)
        self.assertEqual(self.passed(quotas, NOW - 86_400 + 1), 2)
        self.assertEqual(self.passed(quotas, NOW + 1e9), 4)

    def test_concurrency(self) -> None:
        """So many at once; one that ends, however often it says so, makes room for one; what is
        refused takes no token."""
        quotas = own(requests_per_second=1, burst=4, concurrent_requests=2)
        uses = [self.enter(quotas) for _ in range(2)]
        for _ in range(9):
            self.assertEqual(self.refused(quotas).reason, "concurrency")
        uses[0].end()
        uses[0].end()
        self.enter(quotas)
        self.assertEqual(self.refused(quotas).limit, 2)
        uses[1].end()
        self.enter(quotas)

    def test_streams(self) -> None:
        """An event stream makes room for a request and has a bound of its own."""
        quotas = own(concurrent_requests=1, event_streams=2)
        streams = []
        for _ in range(2):
            streams.append(self.enter(quotas))
            self.assertIsNone(streams[-1].become_stream())
        third = self.enter(quotas)
        refusal = third.become_stream()
        assert refusal is not None
        self.assertEqual((refusal.reason, refusal.limit), ("event_streams", 2))
        self.assertEqual(self.refused(quotas).reason, "concurrency")
        third.end()
        streams[0].end()
        self.assertIsNone(self.enter(quotas).become_stream())

    def test_waiting(self) -> None:
        """So many of one tenant wait; it is nobody's quota, so 503; a neighbour may wait."""
        uses = [self.enter(own()) for _ in range(3)]
        self.assertEqual([use.begin_waiting() for use in uses[:2]], [None, None])
        refusal = uses[2].begin_waiting()
        assert refusal is not None
        self.assertEqual((refusal.reason, refusal.status), ("held", 503))
        self.assertIsNone(self.enter(own(), tenant=U).begin_waiting())
        uses[2].end()
        uses[0].end_waiting()
        uses[0].end()
        uses[1].end()
        again = [self.enter(own()).begin_waiting() for _ in range(2)]
        self.assertEqual(again, [None, None])

    def test_untouched(self) -> None:
        """What goes back to the gateway has its token back, once."""
        quotas = own(requests_per_second=0.001, burst=1)
        use = self.enter(quotas)
        use.untouched()
        use.untouched()
        use.end()
        self.assertEqual(self.passed(quotas), 1)

    def test_not_assigned(self) -> None:
        """A tenant that is not here is counted, charged nothing and never refused: its requests go
        back to the gateway."""
        for _ in range(1000):
            self.enter(None).untouched()
        self.assertEqual(self.passed(own(requests_per_second=1, burst=5, concurrent_requests=9)), 0)
        self.quotas = Quotas(DEFAULTS)
        for _ in range(1000):
            self.enter(None).end()
        self.assertEqual(self.passed(own(requests_per_second=1, burst=5)), 5)

    def test_change(self) -> None:
        """New quotas count from the next request on: a rest stays a rest, a debt a debt."""
        self.assertEqual(self.passed(own(requests_per_second=1, burst=5)), 5)
        self.assertEqual(self.passed(own(requests_per_second=100, burst=500)), 0)
        self.assertEqual(self.passed(own(requests_per_second=100, burst=500), NOW + 1), 100)
        self.enter(own(), tenant=U).untouched()
        self.assertEqual(self.passed(own(burst=300), tenant=U), 300)
        held = [self.enter(own(concurrent_requests=5), NOW + 9) for _ in range(5)]
        self.assertEqual(self.refused(own(concurrent_requests=2), NOW + 9).limit, 2)
        for use in held[:4]:
            use.end()
        self.enter(own(concurrent_requests=2), NOW + 9)

    def test_forgotten(self) -> None:
        """Tenants that rest are forgotten; what is used, or in debt, is not."""
        busy, debt = own(concurrent_requests=1), own(requests_per_second=0.001, burst=1)
        self.enter(busy, tenant="tenant_busy")
        self.enter(debt, tenant="tenant_debt").end()
        for number in range(5 * SWEEP_AT):
            self.enter(own(), NOW + number / 50, f"tenant_{number}").end()
        self.assertLessEqual(len(self.quotas), SWEEP_AT)
        self.assertEqual(self.refused(busy, tenant="tenant_busy").reason, "concurrency")
        self.assertEqual(self.refused(debt, tenant="tenant_debt").reason, "rate")

    @settings(max_examples=100)
    @given(
        st.integers(1, 5),
        st.lists(st.sampled_from(["enter", "end", "stream", "wait", "back"]), max_size=80),
    )
    def test_counts_never_drift(self, most: int, steps: list[str]) -> None:
        """Whatever requests do, once all ended, exactly as many may begin as at first."""
        quotas = own(requests_per_second=1e6, burst=10**6, concurrent_requests=most)
        self.quotas, uses = Quotas(Defaults()), []
        for step in steps:
            if step == "enter":
                use = self.quotas.enter(T, quotas, NOW)
                uses += [use] if isinstance(use, Use) else []
            elif uses and step == "end":
                uses.pop().end()
            elif uses and step == "stream":
                stream = uses.pop()
                stream.become_stream()
                stream.end()
            elif uses and step == "wait":
                uses[0].begin_waiting()
                uses[0].end_waiting()
            elif uses:
                uses[0].untouched()
        for use in uses:
            use.end()
        for _ in range(most):
            self.enter(quotas)
        self.assertEqual(self.refused(quotas).reason, "concurrency")
