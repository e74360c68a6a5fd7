"""Whether this node may answer for a tenant at this moment (rule 5 of "Ownership").

A request is handed to PocketBase only under a proof. There are two kinds, and each is aged from the
moment its own question was *sent*: the answer may have been on its way for any time, the question
cannot have been answered before it was asked.

* A lease proof: the control plane acknowledged our lease not longer than 1.5 s ago. It covers the
  tenants, with their epochs, of exactly the list that it names, if this node obeys that list, but
  for those it leaves out. The control plane gives a tenant of a silent node away 2 s after its last
  acknowledgement at the earliest.
* A head proof: the owner object showed our nonce not longer than 0.5 s ago. A new owner answers
  nothing for 0.8 s after its claim, so such a proof has run out by then.

All times are seconds of CLOCK_BOOTTIME, which goes on while the machine sleeps and never jumps.
This module reads no clock and sends nothing; ``durations`` says which relations must hold.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from pbcluster.durations import Durations


class Basis(enum.StrEnum):
    """What a proof rests on."""

    LEASE = "lease"
    HEAD = "head"


@attrs.frozen
class Held:
    """A proof is held, until ``until`` (seconds of CLOCK_BOOTTIME)."""

    basis: Basis
    until: float


@attrs.frozen
class TooEarly:
    """The claim is too young: a predecessor may still hold a proof. Ask again at ``at``."""

    at: float


@attrs.frozen
class Missing:
    """No proof: read the owner object, or refuse."""


Verdict = Held | TooEarly | Missing


@attrs.define
class _Claimed:
    epoch: int
    answer_from: float
    head_sent: float | None = None


class Proofs:
    """All proofs of a node."""

    def __init__(self, durations: Durations) -> None:
        self.durations = durations
        self._obeyed_index = -1
        self._obeyed: dict[str, int] = {}
        self._lease_sent: float | None = None
        #: What is held of all that is covered; one object for all requests.
        self._by_lease = Held(Basis.LEASE, float("-inf"))
        self._covered: dict[str, int] = {}
        self._claims: dict[str, _Claimed] = {}
        self._given_up = False

    @property
    def obeyed_index(self) -> int:
        """Index of the list of assignments that this node obeys, -1 before the first."""
        return self._obeyed_index

    # -- from the assignments --

    def obey(self, index: int, epochs: Mapping[str, int]) -> None:
        """This node obeys the list ``index``: tenant id → epoch.

        What an earlier acknowledgement covered stays covered only for the same tenant under the
        same epoch.
        """
        self._obeyed_index = index
        self._obeyed = dict(epochs)
        self._covered = {
            tenant: epoch for tenant, epoch in self._covered.items() if epochs.get(tenant) == epoch
        }

    # -- from the leases --

    def lease_acked(
        self, sent: float, *, granted: bool, index: int, not_covered: tuple[str, ...] = ()
    ) -> bool:
        """An answer to the lease that was sent at ``sent`` arrived.

        Late and doubled answers change nothing. One that names another list than the obeyed one is
        no proof for anything.

        :returns: whether it became this node's lease proof.
        """
        if self._lease_sent is not None and sent <= self._lease_sent:
            return False
        if not granted:
            self._lease_sent, self._covered = sent, {}
            return False
        if index != self._obeyed_index:
            return False
        left_out = frozenset(not_covered)
        self._lease_sent = sent
        self._by_lease = Held(Basis.LEASE, sent + self.durations.lease_proof_s)
        self._covered = {
            tenant: epoch for tenant, epoch in self._obeyed.items() if tenant not in left_out
        }
        return True

    def drop_leases(self, now: float) -> None:
        """Forget the lease, and whatever answers to leases sent before ``now``: this process has a
        new incarnation."""
        self._lease_sent, self._covered = now, {}

    # -- from the owner object --

    def claimed(self, tenant_id: str, epoch: int, now: float, *, first: bool) -> None:
        """The claim of this epoch was won or found to be ours, as known at ``now``.

        :param first: no predecessor exists that could hold a proof.
        """
        wait_s = 0.0 if first else self.durations.claim_wait_s
        self._claims[tenant_id] = _Claimed(epoch, now + wait_s)

    def resumed(self, tenant_id: str, epoch: int, now: float) -> None:
        """An older claim of ours goes on, as seen at ``now``.

        If this process did not make the claim, its age is unknown and counts from now.
        """
        known = self._claims.get(tenant_id)
        if known is None or known.epoch != epoch:
            answer_from = now + self.durations.claim_wait_s
            self._claims[tenant_id] = _Claimed(epoch, answer_from)

    def head_seen(self, tenant_id: str, epoch: int, sent: float) -> None:
        """The owner object, asked for at ``sent``, showed our nonce of ``epoch``."""
        claim = self._claims.get(tenant_id)
        if claim is not None and claim.epoch == epoch:
            claim.head_sent = sent if claim.head_sent is None else max(claim.head_sent, sent)

    def settled(self, tenant_id: str, epoch: int, now: float) -> bool:
        """Whether our claim of this epoch stands for so long that no predecessor can hold a proof
        any more."""
        claim = self._claims.get(tenant_id)
        return claim is not None and claim.epoch == epoch and now >= claim.answer_from

    def forget(self, tenant_id: str, epoch: int) -> None:
        """This claim is not ours any more: no proof for it until a newer one."""
        claim = self._claims.get(tenant_id)
        if claim is not None and claim.epoch <= epoch:
            del self._claims[tenant_id]
        if self._covered.get(tenant_id, epoch + 1) <= epoch:
            del self._covered[tenant_id]

    def give_up(self) -> None:
        """No proof for anybody any more, whatever is still learned: this node must not serve."""
        self._given_up = True

    # -- the question --

    def judge(self, tenant_id: str, epoch: int, now: float) -> Verdict:
        """Whether a request for ``tenant_id`` may be handed on at ``now``."""
        if self._given_up:
            return Missing()
        claim = self._claims.get(tenant_id)
        if claim is None or claim.epoch != epoch:
            return Missing()
        if now < claim.answer_from:
            return TooEarly(claim.answer_from)
        if self._covered.get(tenant_id) == epoch and now <= self._by_lease.until:
            return self._by_lease
        if claim.head_sent is not None:
            until = claim.head_sent + self.durations.head_proof_s
            if now <= until:
                return Held(Basis.HEAD, until)
        return Missing()

    def lease_age_s(self, now: float) -> float | None:
        """Age of the last lease proof, None if there never was one (for metrics)."""
        return None if self._lease_sent is None else now - self._lease_sent
