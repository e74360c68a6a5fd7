from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.breaker import FAILURES_TO_OPEN, OPEN_S, RAMP_S, Change, State, Ticket
from pbcluster.gateway.tenant_breakers import FREE, MAX_TENANTS, TenantBreakers
from tests.gateway.test_breaker import NoJitter

SHOP = "tenant_shop"


class TenantBreakersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.told: list[tuple[str, Change]] = []
        self.breakers = TenantBreakers(NoJitter(), lambda *told: self.told.append(told))

    def ticket(self, now: float, *, safe: bool = True) -> Ticket:
        ticket = self.breakers.admit(SHOP, now, safe=safe)
        assert ticket is not None
        return ticket

    def time_out(self, now: float, times: int = 1) -> None:
        for _ in range(times):
            self.breakers.timed_out(SHOP, self.ticket(now), now)

    def test_the_usual_tenant_has_none(self) -> None:
        """Who answers has no breaker, whatever it answers and however often it is dropped."""
        self.assertIs(self.ticket(0.0), FREE)
        self.breakers.answered(SHOP, FREE, 1.0)
        self.breakers.dropped(SHOP, FREE, 1.0)
        self.assertEqual((self.breakers.known, self.breakers.show(1.0)), ({}, []))

    def test_opens(self) -> None:
        """Five answers that did not come, with none between, hold the tenant's requests back; not
        those of others."""
        self.time_out(0.0, FAILURES_TO_OPEN - 1)
        self.breakers.answered(SHOP, self.ticket(1.0), 1.0)
        self.time_out(2.0, FAILURES_TO_OPEN - 1)
        self.assertEqual(self.told, [])
        self.time_out(3.0)
        self.assertEqual(self.told, [(SHOP, Change(State.CLOSED, State.OPEN, "no answer in time"))])
        self.assertIsNone(self.breakers.admit(SHOP, 4.0, safe=True))
        self.assertIs(self.breakers.admit("tenant_other", 4.0, safe=False), FREE)
        self.assertEqual(self.breakers.not_closed, 1)
        (row,) = self.breakers.show(4.0)
        self.assertEqual((row.tenant, row.node, row.state), (SHOP, "", "open"))
        self.assertEqual((row.since_s, row.probe_in_s), (1.0, OPEN_S - 1.0))

    def test_begun_together(self) -> None:
        """Requests that were sent before anybody knew count too, and late ones do not count when
        the breaker has opened and closed since."""
        begun = [self.ticket(0.0) for _ in range(FAILURES_TO_OPEN + 3)]
        for ticket in begun[:FAILURES_TO_OPEN]:
            self.breakers.timed_out(SHOP, ticket, 1.0)
        self.assertEqual(self.breakers.not_closed, 1)
        self.breakers.answered(SHOP, begun[-3], 1.5)
        self.assertEqual(self.breakers.not_closed, 1)
        self.recover(1.0 + OPEN_S)
        for ticket in begun[-2:]:
            self.breakers.timed_out(SHOP, ticket, 10.0)
        self.assertEqual(self.breakers.known[SHOP].failures, 0)

    def recover(self, now: float) -> None:
        for _ in range(2):
            self.assertIsNone(self.breakers.admit(SHOP, now, safe=False))
            probe = self.ticket(now)
            self.assertIsNone(self.breakers.admit(SHOP, now, safe=True))
            self.breakers.answered(SHOP, probe, now)
        self.assertEqual(self.breakers.not_closed, 0)

    def test_closes(self) -> None:
        """Two reads, one at a time, are let through and answered: it is closed; after a calm time
        nothing is remembered of it."""
        self.time_out(0.0, FAILURES_TO_OPEN)
        self.recover(OPEN_S)
        states = [(change.before.value, change.after.value) for _, change in self.told[1:]]
        self.assertEqual(states, [("open", "half_open"), ("half_open", "closed")])
        self.breakers.answered(SHOP, self.ticket(3.0), 3.0)
        self.assertIn(SHOP, self.breakers.known)
        self.breakers.answered(SHOP, self.ticket(OPEN_S + RAMP_S), OPEN_S + RAMP_S)
        self.assertEqual(self.breakers.known, {})

    def test_probe_fails(self) -> None:
        """A probe without an answer opens it for twice as long; one whose client went says nothing
        and makes room."""
        self.time_out(0.0, FAILURES_TO_OPEN)
        self.breakers.dropped(SHOP, self.ticket(OPEN_S), OPEN_S)
        self.breakers.timed_out(SHOP, self.ticket(OPEN_S), OPEN_S)
        self.assertIsNone(self.breakers.admit(SHOP, 3 * OPEN_S - 0.1, safe=True))
        self.ticket(3 * OPEN_S)

    def test_bounded(self) -> None:
        """The oldest goes when there are too many."""
        for number in range(MAX_TENANTS + 1):
            self.breakers.timed_out(f"tenant_{number}", FREE, 0.0)
        self.assertEqual(len(self.breakers.known), MAX_TENANTS)
        self.assertNotIn("tenant_0", self.breakers.known)
