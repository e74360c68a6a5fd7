"""The durations on which ownership rests, and the relations between them (rule 5 of "Ownership").

The control plane and the nodes each see only their own clock, and neither knows how long a message
was under way. What keeps two nodes from answering for one tenant is that each side counts from the
moment that is safe for it: a node ages a proof from when it *sent* the question, the control plane
waits from when it *sent* its last answer. :meth:`Durations.check` says which relations the argument
needs; every service calls it at its start. Pure values: no clock here.
"""

from __future__ import annotations

import attrs

from pbcluster.errors import ConfigError


@attrs.frozen(kw_only=True)
class Durations:
    """All in seconds.

    :ivar lease_interval_s: a node renews its lease so often.
    :ivar lease_proof_s: an acknowledgement proves ownership until the node's question is so old.
    :ivar reassign_margin_s: the control plane gives nothing of a node away before so long after
        the last acknowledgement it sent there; also a new leader's wait before it reassigns at all.
    :ivar head_proof_s: an owner object that showed our nonce is a proof until the question is so
        old.
    :ivar claim_wait_s: a new owner answers nothing before so long after its claim.
    :ivar suspect_after_s: silence of a node after which it is probed.
    :ivar probe_timeout_s: a probe without an answer for so long makes it suspected.
    :ivar stream_grace_s: event streams are closed after so long without a proof.
    """

    lease_interval_s: float = 0.4
    lease_proof_s: float = 1.5
    reassign_margin_s: float = 2.0
    head_proof_s: float = 0.5
    claim_wait_s: float = 0.8
    suspect_after_s: float = 0.9
    probe_timeout_s: float = 0.5
    stream_grace_s: float = 2.0

    def check(self) -> None:
        """Verify the relations.

        :raises ConfigError: one does not hold; says which and why it is needed.
        """
        relations = (
            (
                self.reassign_margin_s > self.lease_proof_s,
                "reassign_margin_s must exceed lease_proof_s, or a new owner could answer while "
                "the old one's lease still proves",
            ),
            (
                self.claim_wait_s > self.head_proof_s,
                "claim_wait_s must exceed head_proof_s, or an old owner's look at the owner object "
                "could outlive the new owner's claim",
            ),
            (
                3 * self.lease_interval_s < self.lease_proof_s,
                "three lease intervals must fit into lease_proof_s, or one lost renewal would "
                "interrupt service",
            ),
            (
                self.suspect_after_s > 2 * self.lease_interval_s,
                "suspect_after_s must exceed two lease intervals, or a node would be suspected "
                "for one late renewal",
            ),
            (
                self.suspect_after_s + self.probe_timeout_s < self.reassign_margin_s,
                "suspicion and its probe must end within reassign_margin_s, or they would delay "
                "every take-over",
            ),
        )
        for holds, why in relations:
            if not holds:
                raise ConfigError(f"the durations of ownership contradict each other: {why}")
