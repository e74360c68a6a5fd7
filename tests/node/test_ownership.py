"""Claim and resume: every rule has a test that fails without it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node import ownership
from pbcluster.node.interfaces import Owner, OwnerSeen, OwnerState, Prefixes, Written
from pbcluster.node.ownership import (
    MAX_CLAIM_TRIES,
    Claim,
    Corrupt,
    ListPrefixes,
    ReadOwner,
    ReadPosition,
    Refused,
    Restore,
    Resume,
    Resumed,
    StartEmpty,
    Undecided,
    Won,
    WriteOwner,
)


def owner(epoch: int, nonce: str = "ours", state: OwnerState = OwnerState.SERVING) -> Owner:
    return Owner(epoch=epoch, node="node_a", incarnation=1, nonce=nonce, state=state)


def seen(epoch: int, nonce: str, state: OwnerState = OwnerState.SERVING) -> OwnerSeen:
    return OwnerSeen(owner(epoch, nonce, state), f"etag-{epoch}-{nonce}")


OURS = owner(5)


class ClaimTests(SynchronousTestCase):
    def claim(self, *, ever_ready: bool = True) -> Claim:
        claim = Claim(OURS, ever_ready=ever_ready)
        self.assertEqual(claim.start(), ReadOwner())
        return claim

    def test_first_claim(self) -> None:
        """Where nobody ever claimed, the object is created, never overwritten, and nobody waits."""
        claim = self.claim(ever_ready=False)
        self.assertEqual(claim.owner_read(None), WriteOwner(OURS, ""))
        self.assertEqual(claim.owner_written(Written.WON), ListPrefixes())
        won = claim.prefixes_listed(Prefixes(0, 0))
        self.assertEqual(won, Won(OURS, StartEmpty(), first=True))

    def test_takes_over_a_lower_epoch(self) -> None:
        """A lower epoch is overwritten only if the object is still the one that was read."""
        claim = self.claim()
        step = claim.owner_read(seen(4, "theirs"))
        self.assertEqual(step, WriteOwner(OURS, "etag-4-theirs"))
        claim.owner_written(Written.WON)
        won = claim.prefixes_listed(Prefixes(4, 4))
        self.assertEqual(won, Won(OURS, Restore(4), first=False))

    def test_epochs_are_numbers(self) -> None:
        """Epoch 10 is above 9: epochs are never compared as text."""
        claim = Claim(owner(10), ever_ready=True)
        claim.start()
        self.assertIsInstance(claim.owner_read(seen(9, "theirs")), WriteOwner)

    def test_same_or_higher_epoch_refuses(self) -> None:
        """Another claim of our epoch, or of a higher one, is reported with its number."""
        for epoch in (5, 6, 10):
            step = self.claim().owner_read(seen(epoch, "theirs"))
            assert isinstance(step, Refused)
            self.assertEqual(step.observed_epoch, epoch)
            self.assertFalse(step.set_aside)

    def test_deleted_stays_deleted(self) -> None:
        """A tombstone refuses every epoch."""
        step = self.claim().owner_read(seen(2, "theirs", OwnerState.DELETED))
        self.assertIsInstance(step, Refused)

    def test_archived_wakes_up(self) -> None:
        """An archived tenant may be claimed by a higher epoch."""
        step = self.claim().owner_read(seen(2, "theirs", OwnerState.ARCHIVED))
        self.assertIsInstance(step, WriteOwner)

    def test_lost_answer_is_not_guessed(self) -> None:
        """After a lost answer or a 412 the object is read again; our nonce means won."""
        for written in (Written.UNKNOWN, Written.CONFLICT):
            claim = self.claim()
            claim.owner_read(seen(4, "theirs"))
            self.assertEqual(claim.owner_written(written), ReadOwner())
            self.assertEqual(claim.owner_read(seen(5, "ours")), ListPrefixes())

    def test_our_epoch_with_another_nonce_is_not_ours(self) -> None:
        """After a lost answer, our epoch under another nonce is somebody else's claim."""
        claim = self.claim()
        claim.owner_read(seen(4, "theirs"))
        claim.owner_written(Written.UNKNOWN)
        self.assertIsInstance(claim.owner_read(seen(5, "another attempt")), Refused)

    def test_lower_epoch_after_a_conflict_is_tried_again_with_the_new_etag(self) -> None:
        """Losing to a lower epoch costs a try, with what was read last."""
        claim = self.claim()
        claim.owner_read(seen(2, "x"))
        claim.owner_written(Written.CONFLICT)
        self.assertEqual(claim.owner_read(seen(3, "y")), WriteOwner(OURS, "etag-3-y"))

    def test_tries_are_bounded(self) -> None:
        """Endless conflicts end undecided."""
        claim = self.claim()
        step: ownership.ClaimStep = ReadOwner()
        for _ in range(MAX_CLAIM_TRIES):
            step = claim.owner_read(seen(2, "x"))
            self.assertIsInstance(step, WriteOwner)
            claim.owner_written(Written.CONFLICT)
        self.assertIsInstance(claim.owner_read(seen(2, "x")), Undecided)

    def test_start_again_goes_on_with_the_same_nonce(self) -> None:
        """A claim interrupted by S3 finds itself won when it begins again."""
        claim = self.claim()
        claim.owner_read(seen(4, "theirs"))
        self.assertEqual(claim.start(), ReadOwner())
        self.assertEqual(claim.owner_read(seen(5, "ours")), ListPrefixes())

    def test_prefix_at_or_above_our_epoch_refuses(self) -> None:
        """Two writers never share a prefix."""
        for highest in (5, 7):
            claim = self.claim()
            claim.owner_read(seen(4, "theirs"))
            claim.owner_written(Written.WON)
            step = claim.prefixes_listed(Prefixes(highest, 4))
            assert isinstance(step, Refused)
            self.assertEqual(step.observed_epoch, highest)

    def test_restores_from_ready_only(self) -> None:
        """A higher prefix without READY was never acknowledged from; READY decides."""
        claim = self.claim()
        claim.owner_read(seen(4, "theirs"))
        claim.owner_written(Written.WON)
        won = claim.prefixes_listed(Prefixes(4, 3))
        assert isinstance(won, Won)
        self.assertEqual((won.source, won.parent), (Restore(3), 3))

    def test_ready_wins_over_the_registry(self) -> None:
        """READY in S3 is restored even if its report never reached the registry."""
        claim = self.claim(ever_ready=False)
        claim.owner_read(seen(4, "theirs"))
        claim.owner_written(Written.WON)
        won = claim.prefixes_listed(Prefixes(4, 4))
        assert isinstance(won, Won)
        self.assertEqual(won.source, Restore(4))

    def test_ever_ready_without_ready_is_an_alarm(self) -> None:
        """A tenant that had data is never started empty."""
        claim = self.claim(ever_ready=True)
        claim.owner_read(None)
        claim.owner_written(Written.WON)
        self.assertIsInstance(claim.prefixes_listed(Prefixes(0, 0)), Corrupt)

    def test_not_first_if_anything_was_there(self) -> None:
        """A predecessor may hold a proof even if the tenant was never ready."""
        claim = self.claim(ever_ready=False)
        claim.owner_read(seen(3, "theirs"))
        claim.owner_written(Written.WON)
        won = claim.prefixes_listed(Prefixes(0, 0))
        self.assertEqual(won, Won(OURS, StartEmpty(), first=False))
        claim = self.claim(ever_ready=False)
        claim.owner_read(None)
        claim.owner_written(Written.WON)
        won = claim.prefixes_listed(Prefixes(3, 0))
        self.assertEqual(won, Won(OURS, StartEmpty(), first=False))

    def test_facts_out_of_order_are_a_bug(self) -> None:
        """Prefixes listed before the claim was won are refused: READY may still come."""
        self.assertRaises(AssertionError, self.claim().prefixes_listed, Prefixes(0, 0))


class ResumeTests(SynchronousTestCase):
    def test_trusted(self) -> None:
        """Our nonce, and a copy at or past the prefix, may go on."""
        for local in (7, 8):
            core = Resume(OURS, 5)
            self.assertEqual(core.start(), ReadPosition(5))
            self.assertEqual(core.position_read(seen(5, "ours"), 7, local), Resumed(OURS))

    def refused(self, core: Resume, *facts: object) -> Refused:
        step = core.start()
        if isinstance(step, ReadPosition):
            step = core.position_read(*facts)  # type: ignore[arg-type]
        assert isinstance(step, Refused), step
        self.assertTrue(step.set_aside)
        return step

    def test_without_a_note(self) -> None:
        """A copy of unknown origin (after a power failure) is never served."""
        self.assertEqual(self.refused(Resume(None, 5)).observed_epoch, 5)

    def test_note_of_another_epoch(self) -> None:
        """A copy of an older claim is never resumed under a newer one."""
        self.assertEqual(self.refused(Resume(owner(4), 5)).observed_epoch, 5)

    def test_reverted_copy(self) -> None:
        """A copy behind its prefix would erase acknowledged rows."""
        self.assertEqual(self.refused(Resume(OURS, 5), seen(5, "ours"), 7, 6).observed_epoch, 5)

    def test_somebody_claimed(self) -> None:
        """Another nonce, whatever its epoch, is another owner; its epoch is reported."""
        step = self.refused(Resume(OURS, 5), seen(9, "theirs"), 7, 7)
        self.assertEqual(step.observed_epoch, 9)
        self.refused(Resume(OURS, 5), seen(5, "theirs"), 7, 7)
        self.refused(Resume(OURS, 5), None, 7, 7)

    def test_terminal_state(self) -> None:
        """An archived tenant is not resumed."""
        self.refused(Resume(OURS, 5), seen(5, "ours", OwnerState.ARCHIVED), 7, 7)


class StillOursTests(SynchronousTestCase):
    def test_nonce_decides(self) -> None:
        """Neither epoch nor node proves ownership, only the nonce."""
        self.assertTrue(ownership.still_ours(OURS, seen(5, "ours")))
        self.assertFalse(ownership.still_ours(OURS, seen(5, "theirs")))
        self.assertFalse(ownership.still_ours(OURS, None))
