"""Who owns a tenant: the rules of one claim and of one resume (rules 2, 3 and 4 of "Ownership").

Two small state machines without I/O. Each input is a fact that S3 or the disk told; each answer is
the one next step, a frozen effect, until a verdict ends it. Why each rule stands:

* A claim is a conditional write with a fresh nonce, so of all that claim at once one wins. An
  answer that got lost is not guessed: the object is read again, and the nonce says whose it is.
* READY is looked for only *after* the claim was won. An acknowledgement needs the owner object
  unchanged after its sync, so from the claim on no predecessor can add to what must be restored.
* A prefix at or above our epoch means that somebody wrote under it: two writers on one prefix make
  the rows of one vanish, so the claim is refused and the next epoch must exceed it.
* An empty start is allowed only if the registry says "never ready" *and* S3 shows no READY.
* Resuming keeps epoch and prefix, so it needs a copy that is at or past all that is in S3: the same
  nonce (nobody claimed since), the directory's lock (nobody else writes the copy) and a local
  position not behind the prefix. Any doubt sets the copy aside and asks for a new epoch.

The machines know no retry: after a fault of S3's call :meth:`Claim.start` again, with the same
nonce, so that a claim whose answer was lost is found to be won.
"""

from __future__ import annotations

import enum

import attrs

from pbcluster.node.interfaces import Owner, OwnerSeen, OwnerState, Prefixes, Written

#: Each conflict with a lower epoch means that another node claimed in between; an epoch has one
#: claimant, and assignments are seconds apart, so more than a few mean that something is wrong.
MAX_CLAIM_TRIES = 8


@attrs.frozen
class ReadOwner:
    """Read the owner object."""


@attrs.frozen
class WriteOwner:
    """Write ``owner`` if the object still has ``expected_etag`` (empty: if there is none)."""

    owner: Owner
    expected_etag: str


@attrs.frozen
class ListPrefixes:
    """List the epochs that have a prefix in S3."""


@attrs.frozen
class ReadPosition:
    """Read the owner object and the highest TXID of this epoch's prefix (in any order)."""

    epoch: int


@attrs.frozen
class Restore:
    """Restore the copy from ``epoch``, the highest with READY."""

    epoch: int


@attrs.frozen
class StartEmpty:
    """Begin with no data: this tenant was never ready anywhere."""


@attrs.frozen
class Won:
    """The claim is ours.

    :ivar owner: what the owner object now says.
    :ivar source: what the local copy must be made from; a copy that is there is set aside first.
    :ivar first: no predecessor can hold a proof: this tenant was never claimed before, or the
        claim that ours replaced was given up.
    """

    owner: Owner
    source: Restore | StartEmpty
    first: bool

    @property
    def parent(self) -> int:
        """The epoch that READY will name as its parent, 0 for an empty start."""
        return self.source.epoch if isinstance(self.source, Restore) else 0


@attrs.frozen
class Resumed:
    """The local copy may go on under its epoch and prefix."""

    owner: Owner


@attrs.frozen
class Refused:
    """Not ours: the control plane's next epoch must exceed ``observed_epoch``.

    :ivar set_aside: the local copy is not trusted; move it away, never overwrite it.
    :ivar deleted: the tombstone of a deleted tenant is there: no epoch will ever do.
    """

    observed_epoch: int
    why: str
    set_aside: bool = False
    deleted: bool = False


@attrs.frozen
class Corrupt:
    """What S3 shows cannot be: keep everything, raise an alarm, never fall back silently."""

    why: str


@attrs.frozen
class Undecided:
    """Too many conflicts; try again later, from the beginning."""

    why: str


ClaimStep = ReadOwner | WriteOwner | ListPrefixes | Won | Refused | Corrupt | Undecided


class _Phase(enum.Enum):
    IDLE = "idle"
    READING = "reading"
    WRITING = "writing"
    LISTING = "listing"
    ENDED = "ended"


class Claim:
    """One attempt to own a tenant under one epoch and one nonce."""

    def __init__(self, wanted: Owner, *, ever_ready: bool, released_epoch: int = 0) -> None:
        """
        :param wanted: what the owner object shall say; its nonce is fresh for this attempt.
        :param ever_ready: whether the registry says that the tenant was ever ready.
        :param released_epoch: the owner of this epoch gave it up, when no earlier one could hold a
            proof; 0: none did.
        """
        self._released_epoch = released_epoch
        self._wanted = wanted
        self._ever_ready = ever_ready
        self._phase = _Phase.IDLE
        self._tries = 0
        self._replaced_somebody = False
        self._replaced_released = False

    def start(self) -> ClaimStep:
        """Begin, or begin again after a fault of S3's: the first step."""
        self._tries = 0
        return self._read()

    def owner_read(self, seen: OwnerSeen | None) -> ClaimStep:
        """The owner object was read; None: there is none."""
        self._expect(_Phase.READING)
        if seen is None:
            return self._write("")
        if seen.owner.nonce == self._wanted.nonce:
            return self._list()
        if seen.owner.epoch != self._released_epoch:
            self._replaced_somebody = True
        self._replaced_released = seen.owner.epoch == self._released_epoch
        if seen.owner.state is OwnerState.DELETED:
            self._phase = _Phase.ENDED
            return Refused(seen.owner.epoch, "the tenant is deleted", deleted=True)
        if seen.owner.epoch >= self._wanted.epoch:
            return self._refuse(
                seen.owner.epoch,
                f"{seen.owner.node} owns it under epoch {seen.owner.epoch}, ours is "
                f"{self._wanted.epoch}",
            )
        return self._write(seen.etag)

    def owner_written(self, written: Written) -> ClaimStep:
        """What is known of the conditional write."""
        self._expect(_Phase.WRITING)
        if written is Written.WON:
            return self._list()
        return self._read()

    def prefixes_listed(self, prefixes: Prefixes) -> ClaimStep:
        """Which epochs exist, listed after the claim was won."""
        self._expect(_Phase.LISTING)
        if prefixes.highest >= self._wanted.epoch:
            return self._refuse(
                prefixes.highest,
                f"epoch {prefixes.highest} has data in S3 already, ours is {self._wanted.epoch}",
            )
        self._phase = _Phase.ENDED
        if prefixes.ready:
            quiet = self._replaced_released and not self._replaced_somebody
            return Won(self._wanted, Restore(prefixes.ready), first=quiet)
        if self._ever_ready:
            return Corrupt(
                "the registry says that this tenant was ready, but S3 shows no epoch with READY; "
                "nothing was started, nothing was removed"
            )
        first = not self._replaced_somebody and not prefixes.highest
        return Won(self._wanted, StartEmpty(), first=first)

    def _read(self) -> ClaimStep:
        self._phase = _Phase.READING
        return ReadOwner()

    def _write(self, etag: str) -> ClaimStep:
        self._tries += 1
        if self._tries > MAX_CLAIM_TRIES:
            self._phase = _Phase.ENDED
            return Undecided(f"{MAX_CLAIM_TRIES} conditional writes met a conflict")
        self._phase = _Phase.WRITING
        return WriteOwner(self._wanted, etag)

    def _list(self) -> ClaimStep:
        self._phase = _Phase.LISTING
        return ListPrefixes()

    def _refuse(self, observed: int, why: str) -> Refused:
        self._phase = _Phase.ENDED
        return Refused(observed, why)

    def _expect(self, phase: _Phase) -> None:
        if self._phase is not phase:
            raise AssertionError(f"a claim that is {self._phase.value} was told of {phase.value}")


ResumeStep = ReadPosition | Resumed | Refused


class Resume:
    """One attempt to go on with the local copy under the epoch it had.

    It is made only by a holder of the directory's lock; see the module's text.
    """

    def __init__(self, note: Owner | None, epoch: int) -> None:
        """
        :param note: the claim under which the copy was last served; None: it may not be trusted.
        :param epoch: the epoch of the assignment.
        """
        self._note = note
        self._epoch = epoch

    def start(self) -> ResumeStep:
        """The first step."""
        if self._note is None:
            return Refused(self._epoch, "the local copy has no trusted claim note", set_aside=True)
        if self._note.epoch != self._epoch:
            return Refused(
                max(self._epoch, self._note.epoch),
                f"the local copy was claimed under epoch {self._note.epoch}, not {self._epoch}",
                set_aside=True,
            )
        return ReadPosition(self._epoch)

    def position_read(
        self, seen: OwnerSeen | None, remote_txid: int, local_txid: int
    ) -> ResumeStep:
        """Owner object, highest TXID of the prefix, and the local position under the lock."""
        assert self._note is not None, "start() refuses a resume without a note"
        if seen is None:
            return Refused(self._epoch, "the owner object is missing", set_aside=True)
        if seen.owner.nonce != self._note.nonce:
            return Refused(
                max(seen.owner.epoch, self._epoch),
                f"{seen.owner.node} claimed it under epoch {seen.owner.epoch}",
                set_aside=True,
            )
        if seen.owner.state is not OwnerState.SERVING:
            return Refused(self._epoch, f"the tenant is {seen.owner.state.value}", set_aside=True)
        if local_txid < remote_txid:
            return Refused(
                self._epoch,
                f"the local copy is at transaction {local_txid}, S3 at {remote_txid}: it was put "
                "back or lost what it had",
                set_aside=True,
            )
        return Resumed(self._note)


def still_ours(owner: Owner, seen: OwnerSeen | None) -> bool:
    """Whether the owner object read just now shows our claim, and only ours: by its nonce."""
    return seen is not None and seen.owner.nonce == owner.nonce
