"""Proofs: when a node may answer."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.durations import Durations
from pbcluster.node.proofs import Basis, Held, Missing, Proofs, TooEarly

T = "tenant_aaaaaaaa"
U = "tenant_bbbbbbbb"


class ProofTests(SynchronousTestCase):
    def setUp(self) -> None:
        Durations().check()
        self.proofs = Proofs(Durations())
        self.proofs.obey(10, {T: 5, U: 1})
        self.proofs.claimed(T, 5, 0.0, first=True)

    def ack(self, sent: float, index: int = 10, **kwargs: object) -> bool:
        return self.proofs.lease_acked(sent, granted=True, index=index, **kwargs)  # type: ignore[arg-type]

    def held(self, now: float, epoch: int = 5) -> bool:
        return isinstance(self.proofs.judge(T, epoch, now), Held)

    def test_nothing_proves_at_first(self) -> None:
        """A claim alone is no proof."""
        self.assertEqual(self.proofs.judge(T, 5, 0.0), Missing())

    def test_lease_ages_from_its_sending(self) -> None:
        """However late the answer came, the proof ends 1.5 s after the question left."""
        self.ack(100.0)  # arrived at, say, 101.4
        self.assertEqual(self.proofs.judge(T, 5, 101.4), Held(Basis.LEASE, 101.5))
        self.assertFalse(self.held(101.51))

    def test_lease_of_another_list_is_no_proof(self) -> None:
        """Neither a newer list that is not obeyed yet nor an older one counts."""
        for index in (9, 11):
            self.assertFalse(self.ack(100.0, index))
            self.assertFalse(self.held(100.1))

    def test_not_covered(self) -> None:
        """A tenant that the acknowledgement leaves out has no proof; the others have."""
        self.proofs.claimed(U, 1, 0.0, first=True)
        self.ack(100.0, not_covered=(T,))
        self.assertFalse(self.held(100.1))
        self.assertIsInstance(self.proofs.judge(U, 1, 100.1), Held)

    def test_newer_ack_takes_cover_away(self) -> None:
        """What a newer acknowledgement leaves out is not covered by the older one any more."""
        self.ack(100.0)
        self.ack(100.4, not_covered=(T,))
        self.assertFalse(self.held(100.5))

    def test_late_and_doubled_acks(self) -> None:
        """An answer to an older lease never replaces a newer one."""
        self.ack(100.4, not_covered=(T,))
        self.assertFalse(self.ack(100.0))
        self.assertFalse(self.held(100.5))
        self.ack(101.0)
        self.assertFalse(self.ack(101.0))
        self.assertTrue(self.held(101.1))

    def test_denied_lease(self) -> None:
        """A lease that was not granted ends the proof at once."""
        self.ack(100.0)
        self.proofs.lease_acked(100.4, granted=False, index=10)
        self.assertFalse(self.held(100.5))

    def test_new_list_keeps_cover_of_what_stays(self) -> None:
        """Another tenant's coming does not interrupt ours; our own new epoch does."""
        self.ack(100.0)
        self.proofs.obey(11, {T: 5, U: 1, "tenant_cccccccc": 1})
        self.assertTrue(self.held(100.1))
        self.proofs.obey(12, {T: 6})
        self.proofs.claimed(T, 6, 0.0, first=True)
        self.assertFalse(self.held(100.1, epoch=6))

    def test_taken_away_and_given_back(self) -> None:
        """An acknowledgement from before a tenant was taken away proves nothing when it is back."""
        self.ack(100.0)
        self.proofs.obey(11, {U: 1})
        self.proofs.obey(12, {T: 5, U: 1})
        self.assertFalse(self.held(100.1))

    def test_new_incarnation(self) -> None:
        """Answers to leases of the former incarnation do not count."""
        self.ack(100.0)
        self.proofs.drop_leases(100.5)
        self.assertFalse(self.held(100.6))
        self.assertFalse(self.ack(100.4))
        self.assertTrue(self.ack(100.6))

    def test_head_ages_from_its_sending(self) -> None:
        """A look at the owner object proves for 0.5 s from when it was asked for."""
        self.proofs.head_seen(T, 5, 50.0)
        self.assertEqual(self.proofs.judge(T, 5, 50.5), Held(Basis.HEAD, 50.5))
        self.assertFalse(self.held(50.51))

    def test_older_look_changes_nothing(self) -> None:
        """Looks that overtake each other keep the newest."""
        self.proofs.head_seen(T, 5, 50.0)
        self.proofs.head_seen(T, 5, 49.0)
        self.assertTrue(self.held(50.4))

    def test_claim_wait(self) -> None:
        """After a claim nothing is answered for 0.8 s, whatever proves: a predecessor may hold a
        look at the owner object from just before."""
        self.proofs.claimed(T, 5, 100.0, first=False)
        self.ack(100.1)
        self.proofs.head_seen(T, 5, 100.1)
        self.assertEqual(self.proofs.judge(T, 5, 100.7), TooEarly(100.8))
        self.assertTrue(self.held(100.8))

    def test_very_first_claim_waits_for_nobody(self) -> None:
        """Where nobody was before, nobody holds a proof."""
        self.ack(0.0)
        self.assertTrue(self.held(0.0))

    def test_resume_in_another_process_waits(self) -> None:
        """A claim of unknown age counts from now; one that this process made does not wait."""
        self.proofs.forget(T, 5)
        self.ack(100.0)
        self.proofs.resumed(T, 5, 100.0)
        self.assertEqual(self.proofs.judge(T, 5, 100.1), TooEarly(100.8))
        self.proofs.resumed(T, 5, 101.0)
        self.assertTrue(self.held(101.0))

    def test_forgotten(self) -> None:
        """A fenced tenant has no proof, even under a live lease; a newer claim is untouched."""
        self.ack(100.0)
        self.proofs.forget(T, 5)
        self.assertFalse(self.held(100.1))
        self.proofs.obey(11, {T: 6})
        self.proofs.claimed(T, 6, 0.0, first=True)
        self.proofs.forget(T, 5)
        self.ack(100.2, 11)
        self.assertTrue(self.held(100.3, epoch=6))

    def test_given_up(self) -> None:
        """From giving up on neither the proofs held nor any that come prove anything."""
        self.ack(100.0)
        self.assertTrue(self.held(100.1))
        self.proofs.give_up()
        self.assertFalse(self.held(100.1))
        self.ack(100.2)
        self.proofs.head_seen(T, 5, 100.2)
        self.proofs.claimed(T, 5, 100.2, first=True)
        self.assertEqual(self.proofs.judge(T, 5, 100.3), Missing())
