from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.breaker import (
    CHECK_S,
    FAILURES_TO_OPEN,
    HEALTH_AGAIN_S,
    IN_USE_S,
    MISSES_TO_OPEN,
    OPEN_MAX_S,
    OPEN_S,
    PROBE_S,
    RAMP_S,
    RAMP_START,
    Breaker,
    State,
    Ticket,
)
from pbcluster.gateway.breakers import Breakers


class NoJitter:
    """Always the middle."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class TableTests(SynchronousTestCase):
    """Each row: what happens, and the state afterwards. ``+2`` lets two seconds pass."""

    TABLE = (
        ("nothing", "", "closed"),
        ("four failures", "f f f f", "closed"),
        ("five failures in a row", "f f f f f", "open"),
        ("a success between", "f f f f s f f f f", "closed"),
        ("no verdict between does not count", "f f f d f f", "open"),
        ("one slow tenant, however often", "t1 t1 t1 t1 t1 t1 t1 t1", "closed"),
        ("three slow tenants are one failure", "t1 t2 t3", "closed"),
        ("three slow tenants, five times", "t1 t2 t3 " * 5, "open"),
        ("slow ones too far apart", "t1 t2 +10 t3 t1 +10 " * 6, "closed"),
        ("the control plane's word", "x", "open"),
        ("open: not before its wait is over", "x +1.9 h", "open"),
        ("open: a request is no probe", "x +2 g", "open"),
        ("half open at the first health question", "x +2 h", "half_open"),
        ("half open after one success", "x +2 hs", "half_open"),
        ("health, then a GET", "x +2 hs gs", "closed"),
        ("health, then a POST is not admitted", "x +2 hs p", "half_open"),
        ("health twice", "x +2 hs +1 hs", "closed"),
        ("health fails", "x +2 hf", "open"),
        ("the GET fails", "x +2 hs gf", "open"),
        ("an aborted probe gives no verdict", "x +2 hs gd gs", "closed"),
        ("second wait is doubled", "x +2 hf +3.9 h", "open"),
        ("second wait is over", "x +2 hf +4 h", "half_open"),
        ("said to be up: no wait", "x u h", "half_open"),
        ("down while half open", "x +2 hs x", "open"),
        ("in use, two health questions fail", "s +2 hf +2 hf", "closed"),
        ("in use, three fail", "s +2 hf +2 hf +2 hf", "open"),
        ("one is answered between", "s +2 hf +2 hf +2 hs +2 hf +2 hf", "closed"),
        ("a request is answered between", "s +2 hf +2 hf s +2 hf +2 hf", "closed"),
        ("health does not undo failures", "s f f f f +2 hs f", "open"),
        ("not in use: nobody asks", "s +31 hf +2 hf +2 hf +2 hf", "closed"),
        ("a slow tenant, five times", "t1 s t1 t1 t1 t1 t1", "closed"),
        ("the same while health fails", "s +2 hf t1 t1 t1 t1 t1", "open"),
        ("the same when health is well again", "s +2 hf +2 hs t1 t1 t1 t1 t1", "closed"),
    )

    def run_script(self, script: str) -> Breaker:
        now = 100.0
        breaker = Breaker(now, NoJitter())
        for word in script.split():
            if word[0] == "+":
                now += float(word[1:])
            elif word == "x":
                breaker.force_open(now, "said so")
            elif word == "u":
                breaker.look_again(now)
            elif word[0] == "h":
                self.verdict(breaker, breaker.admit_health(now), word[1:], now)
            elif word[0] in "gp":
                ticket = breaker.admit(now, safe=word[0] == "g")
                self.verdict(breaker, ticket, word[1:], now)
            else:
                self.verdict(breaker, breaker.admit(now, safe=True), word, now)
        return breaker

    def verdict(self, breaker: Breaker, ticket: Ticket | None, what: str, now: float) -> None:
        if ticket is None or not what:
            return
        if what == "s":
            breaker.succeeded(ticket, now)
        elif what == "f":
            breaker.failed(ticket, now, "refused")
        elif what == "d":
            breaker.dropped(ticket, now)
        else:
            breaker.slow(ticket, now, what)

    def test_table(self) -> None:
        """Every row ends in its state."""
        for name, script, state in self.TABLE:
            self.assertEqual(self.run_script(script).state.value, state, name)


class BreakerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.breaker = Breaker(0.0, NoJitter())

    def ticket(self, now: float = 0.0) -> Ticket:
        ticket = self.breaker.admit(now, safe=True)
        assert ticket is not None
        return ticket

    def open(self, now: float = 0.0) -> None:
        for _ in range(FAILURES_TO_OPEN):
            self.breaker.failed(self.ticket(now), now, "refused")
        self.assertIs(self.breaker.state, State.OPEN)

    def close(self, now: float) -> None:
        for _ in range(2):
            self.breaker.look_again(now)
            ticket = self.breaker.admit_health(now) or self.breaker.admit(now, safe=True)
            assert ticket is not None
            self.breaker.succeeded(ticket, now)
        self.assertIs(self.breaker.state, State.CLOSED)

    def test_late_failures_are_dropped(self) -> None:
        """Attempts begun before the breaker opened and closed again give no verdict on it."""
        late = [self.ticket() for _ in range(FAILURES_TO_OPEN)]
        self.open()
        self.close(2.0)
        for ticket in late:
            self.assertIsNone(self.breaker.failed(ticket, 2.0, "late"))
        self.assertIs(self.breaker.state, State.CLOSED)
        self.assertEqual(self.breaker.failures, 0)

    def test_one_probe_at_a_time(self) -> None:
        """While a probe is out no other goes, until it is overdue."""
        self.open()
        self.assertIsNotNone(self.breaker.admit_health(2.0))
        self.assertIsNone(self.breaker.admit_health(2.0 + PROBE_S - 0.1))
        self.assertIsNotNone(self.breaker.admit_health(2.0 + PROBE_S))

    def test_silence_is_asked_about(self) -> None:
        """A node in use that says nothing is asked for its health each two seconds; one that
        answers, or that nobody needs, is not."""
        asked: list[float] = []

        def look(now: float) -> None:
            ticket = self.breaker.admit_health(now)
            if ticket is not None:
                asked.append(now)
                self.breaker.succeeded(ticket, now)

        look(10.0)  # nobody needs it
        waits = self.ticket(10.0)
        for tenth in range(101, 201):
            look(tenth / 10)
        self.assertEqual(asked, [10.1, 12.1, 14.1, 16.1, 18.1])
        self.breaker.succeeded(waits, 20.0)
        for second in range(20, 30):
            self.breaker.succeeded(self.ticket(second), second)
            look(second + 1)
        self.assertEqual(len(asked), 5)
        look(29.0 + CHECK_S)
        look(29.0 + IN_USE_S)
        self.assertEqual(asked[5:], [29.0 + CHECK_S])

    def test_late_misses_are_dropped(self) -> None:
        """A question that was asked before the breaker opened says nothing when it closed again."""
        self.breaker.succeeded(self.ticket(), 0.0)
        late = [self.breaker.admit_health(CHECK_S * n) for n in range(1, 1 + MISSES_TO_OPEN)]
        self.open(6.0)
        self.close(8.0)
        for ticket in late:
            assert ticket is not None
            self.assertIsNone(self.breaker.failed(ticket, 9.0, "late"))

    def test_half_open_without_reads(self) -> None:
        """If only writes come by, a second health question closes the breaker."""
        self.open()
        ticket = self.breaker.admit_health(2.0)
        assert ticket is not None
        self.breaker.succeeded(ticket, 2.0)
        self.assertIsNone(self.breaker.admit(2.0, safe=False))
        self.assertIsNone(self.breaker.admit_health(2.0 + HEALTH_AGAIN_S / 2))
        ticket = self.breaker.admit_health(2.0 + HEALTH_AGAIN_S)
        assert ticket is not None
        change = self.breaker.succeeded(ticket, 3.0)
        assert change is not None
        self.assertEqual((change.before, change.after), (State.HALF_OPEN, State.CLOSED))

    def test_waits_double_to_a_bound(self) -> None:
        """2, 4, 8, 15, 15 seconds while probes fail; 2 again after a calm time."""
        now, waits = 0.0, []
        self.open(now)
        for _ in range(5):
            waits.append(self.breaker.open_until - now)
            now = self.breaker.open_until
            ticket = self.breaker.admit_health(now)
            assert ticket is not None
            self.breaker.failed(ticket, now, "refused")
        self.assertEqual(waits, [OPEN_S, 4.0, 8.0, OPEN_MAX_S, OPEN_MAX_S])
        self.close(now)
        now += RAMP_S
        self.open(now)
        self.assertEqual(self.breaker.open_until - now, OPEN_S)

    def test_flapping_keeps_the_long_wait(self) -> None:
        """A node that fails again right after it closed waits longer than before."""
        self.open(0.0)
        self.close(2.0)
        self.open(3.0)
        self.assertEqual(self.breaker.open_until, 3.0 + 2 * OPEN_S)

    def test_jitter(self) -> None:
        """Waits vary by a fifth."""

        class Low:
            def uniform(self, a: float, b: float) -> float:
                return a

        breaker = Breaker(0.0, Low())
        breaker.force_open(0.0, "said so")
        self.assertAlmostEqual(breaker.open_until, OPEN_S * 0.8)

    def test_ramp(self) -> None:
        """After closing, what is under way at once is bounded, doubling each second, for 10 s."""
        self.open(0.0)
        self.close(2.0)
        self.assertEqual(self.admitted(2.0, 1000), RAMP_START)
        self.assertEqual(self.admitted(3.0, 1000), RAMP_START)
        self.assertEqual(self.admitted(2.0 + RAMP_S, 1000), 1000)

    def admitted(self, now: float, asked: int) -> int:
        return sum(self.breaker.admit(now, safe=False) is not None for _ in range(asked))

    def test_ramp_counts_what_is_open(self) -> None:
        """An attempt that has its answer makes room for the next one."""
        self.open(0.0)
        self.close(2.0)
        for _ in range(RAMP_START * 5):
            self.breaker.succeeded(self.ticket(2.0), 2.0)


class BreakersTests(SynchronousTestCase):
    def test_each_life_has_its_own(self) -> None:
        """A new incarnation begins closed, the old one's breaker is dropped."""
        breakers = Breakers(NoJitter())
        breakers.node_down("node_a", 1, 0.0)
        self.assertIs(breakers.of("node_a", 1, 0.0).state, State.OPEN)
        self.assertIs(breakers.of("node_a", 2, 0.0).state, State.CLOSED)
        self.assertEqual([(s.node, s.incarnation) for s in breakers.show(0.0)], [("node_a", 2)])

    def test_most_are_open(self) -> None:
        """More than half of at least three nodes away: our own network is suspected."""
        for known, away, expected in ((1, 1, False), (2, 2, False), (3, 1, False), (3, 2, True)):
            breakers = Breakers(NoJitter())
            for number in range(known):
                breakers.of(f"node_{number}", 1, 0.0)
            for number in range(away):
                breakers.node_down(f"node_{number}", 1, 0.0)
            self.assertEqual(breakers.most_are_open(), expected, (known, away))
