"""Whether two owners answered for one tenant. Pure.

Nodes were asked directly, each answer with 200 shows that the node took itself for the owner at
some moment between request and answer. Which epoch it had is not told; which node claimed which
epoch is known from S3. So the answers are consistent if each can be given an epoch

* that its node claimed, and not only after the answer;
* that is no lower than the epoch of any answer that was there before it was asked for.

Giving each answer, in the order of the requests, the lowest epoch that is possible leaves the most
room to the later ones: if that finds none for an answer, there is none, and two owners answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from pbcluster.testing.chaos.history import Claim, Operation


def two_owners(answers: Iterable[Operation], claims: Iterable[Claim]) -> list[str]:
    """A sentence for each answer of a node that was not the owner any more, or not yet.

    :param answers: good answers of nodes that were asked directly.
    """
    by_tenant: dict[str, list[Operation]] = {}
    for answer in answers:
        if answer.node and answer.status == 200:
            by_tenant.setdefault(answer.tenant, []).append(answer)
    all_claims = list(claims)
    found: list[str] = []
    for tenant, given in by_tenant.items():
        found += _of_tenant(given, [claim for claim in all_claims if claim.tenant == tenant])
    return found


def _of_tenant(answers: Sequence[Operation], claims: Sequence[Claim]) -> list[str]:
    found: list[str] = []
    #: (end, epoch) of answers that were not yet over when the last one was asked for.
    open_answers: list[tuple[float, int]] = []
    floor = 0
    for answer in sorted(answers, key=lambda each: each.begun_s):
        while open_answers and open_answers[0][0] < answer.begun_s:
            floor = max(floor, heappop(open_answers)[1])
        own = [c for c in claims if c.node == answer.node and c.after_s < answer.ended_s]
        possible = [claim.epoch for claim in own if claim.epoch >= floor]
        if possible:
            heappush(open_answers, (answer.ended_s, min(possible)))
            continue
        known = sorted({claim.epoch for claim in own})
        found.append(
            f"{answer.node} answered for {answer.tenant} at {answer.begun_s:.3f} to "
            f"{answer.ended_s:.3f} s after an owner of epoch {floor} had; its own epochs: {known}"
        )
    return found
