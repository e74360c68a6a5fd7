"""Liveness: suspicion by silence and probe, and the margin before anything is given away."""

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.liveness import Liveness, ProbeNode
from pbcluster.durations import Durations
from pbcluster.errors import ConfigError

STEP = 0.05


class TestLiveness(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 100.0
        self.liveness = Liveness(Durations(), self.now)
        self.probes: list[ProbeNode] = []
        self.liveness.known("a", 1, self.now)

    def until(self, when: float, *, leases: bool = False) -> None:
        """Tick up to ``when``, renewing the lease each 0.4 s if so wished."""
        due = self.now
        while self.now < when - 1e-9:
            self.now = round(min(self.now + STEP, when), 3)
            if leases and self.now >= due:
                self.assertTrue(self.liveness.lease("a", 1, self.now))
                due = self.now + 0.4
            self.probes.extend(self.liveness.tick(self.now))

    def test_who_renews_is_alive(self) -> None:
        """No probe, no suspicion."""
        self.until(110.0, leases=True)
        self.assertEqual(self.probes, [])
        self.assertTrue(self.liveness.alive("a"))
        self.assertFalse(self.liveness.may_give_away("a", self.now))

    def test_silence_is_probed_then_suspected(self) -> None:
        """A probe after more than 0.9 s of silence, suspicion 0.5 s after the probe."""
        self.until(100.85)
        self.assertEqual(self.probes, [])
        self.until(100.95)
        self.assertEqual(self.probes, [ProbeNode("a", 1)])
        self.until(101.35)
        self.assertTrue(self.liveness.alive("a"))
        self.until(101.45)
        self.assertFalse(self.liveness.alive("a"))
        self.assertEqual(len(self.probes), 1)

    def test_an_answered_probe_is_a_sign_of_life(self) -> None:
        """It starts the silence anew."""
        self.until(101.0)
        self.liveness.heard("a", 1, self.now)
        self.until(101.85)
        self.assertTrue(self.liveness.alive("a"))
        self.until(103.0)
        self.assertFalse(self.liveness.alive("a"))
        self.assertEqual(len(self.probes), 2)

    def test_nothing_is_given_away_before_the_margin(self) -> None:
        """2 s after the last acknowledgement that was sent, not earlier."""
        self.until(110.0, leases=True)
        last = self.now
        self.liveness.lease("a", 1, last)
        self.until(last + 1.95)
        self.assertFalse(self.liveness.alive("a"))
        self.assertFalse(self.liveness.may_give_away("a", self.now))
        self.until(last + 2.0)
        self.assertTrue(self.liveness.may_give_away("a", self.now))

    def test_a_new_leader_gives_nothing_away_at_first(self) -> None:
        """It does not know what its predecessor acknowledged: not before 2 s of its own."""
        fresh = Liveness(Durations(), 100.0)
        self.assertFalse(fresh.may_give_away("never_heard", 101.99))
        self.assertTrue(fresh.may_give_away("never_heard", 102.0))
        hasty = Liveness(Durations(suspect_after_s=0.1, probe_timeout_s=0.1), 100.0)
        hasty.known("a", 1, 100.0)
        hasty.tick(100.2)
        hasty.tick(100.4)
        self.assertFalse(hasty.alive("a"))
        self.assertFalse(hasty.may_give_away("a", 101.99))
        self.assertTrue(hasty.may_give_away("a", 102.0))

    def test_who_comes_back_is_trusted_again(self) -> None:
        """A lease of the same incarnation ends the suspicion, and the margin begins anew."""
        self.until(103.0)
        self.assertTrue(self.liveness.may_give_away("a", self.now))
        self.assertTrue(self.liveness.lease("a", 1, self.now))
        self.assertTrue(self.liveness.alive("a"))
        self.assertFalse(self.liveness.may_give_away("a", self.now))

    def test_an_older_incarnation_gets_no_lease(self) -> None:
        """Nor does its voice speak for the new one."""
        self.liveness.known("a", 2, self.now)
        self.assertFalse(self.liveness.lease("a", 1, self.now))
        self.until(103.0)
        self.liveness.heard("a", 1, self.now)
        self.assertFalse(self.liveness.alive("a"))

    def test_promises_to_an_older_incarnation_hold_for_the_margin(self) -> None:
        """The new one gets no new epoch before 2 s after the last acknowledgement to the old one,
        however often it renews its own."""
        self.until(110.0, leases=True)
        old = self.now
        self.liveness.lease("a", 1, old)
        self.now = old + 0.2
        self.liveness.known("a", 2, self.now)
        for _ in range(4):
            self.now += 0.4
            self.assertTrue(self.liveness.lease("a", 2, self.now))
            self.assertFalse(self.liveness.may_renew("a", self.now))
        self.assertTrue(self.liveness.may_renew("a", old + 2.0))

    def test_a_doubted_node_is_probed_once(self) -> None:
        """A gateway's doubt causes one probe, and no suspicion while leases come."""
        self.assertEqual(self.liveness.doubted("a", 1, self.now), ProbeNode("a", 1))
        self.assertIsNone(self.liveness.doubted("a", 1, self.now))
        self.assertIsNone(self.liveness.doubted("a", 7, self.now))
        self.until(105.0, leases=True)
        self.assertTrue(self.liveness.alive("a"))
        self.assertEqual(self.liveness.doubted("a", 1, self.now), ProbeNode("a", 1))

    def test_what_is_taken_away_is_not_covered(self) -> None:
        """From the decision to its end, for the loser only, whatever it says meanwhile."""
        self.liveness.begin_taking("t1", "a")
        self.assertEqual(self.liveness.not_covered("a"), ("t1",))
        self.liveness.lease("a", 1, self.now)
        self.assertEqual(self.liveness.not_covered("a"), ("t1",))
        self.assertEqual(self.liveness.not_covered("b"), ())
        self.liveness.end_taking("t1")
        self.assertEqual(self.liveness.not_covered("a"), ())

    def test_down_is_for_operators_only(self) -> None:
        """15 s without a sign of life."""
        self.assertFalse(self.liveness.is_down("a", 114.9, 15.0))
        self.assertTrue(self.liveness.is_down("a", 115.0, 15.0))


class TestDurations(SynchronousTestCase):
    def test_the_defaults_fit_together(self) -> None:
        """They pass their own check."""
        Durations().check()

    def test_each_broken_relation_is_refused(self) -> None:
        """And named."""
        for wrong, named in (
            ({"lease_proof_s": 2.0}, "reassign_margin_s"),
            ({"head_proof_s": 0.8}, "claim_wait_s"),
            ({"lease_interval_s": 0.5}, "lease_proof_s"),
            ({"suspect_after_s": 0.8}, "suspect_after_s"),
            ({"probe_timeout_s": 1.1}, "suspicion"),
        ):
            error = self.assertRaises(ConfigError, Durations(**wrong).check)
            self.assertIn(named, error.message)
