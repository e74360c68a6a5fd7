"""Which copies on a node's disk must go, and which must be looked at. Pure.

A copy is *settled* if its tenant was stopped and everything in it is in S3; only such a copy is
ever removed. Of tenants that are assigned here a settled copy is a warm copy: the next request
resumes it without a restore, so it stays until the budget is over, least recently stopped first.
Of tenants that are not assigned here any more it is of no use, but for a moment in which a
migration may come back. What is not settled and not assigned is to be looked at: S3 tells whose
the tenant is.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import attrs

#: A settled copy of a tenant that is not assigned here any more stays for so long.
KEEP_UNASSIGNED_S = 600.0


@attrs.frozen
class LocalCopy:
    """A tenant's directory on this node.

    :ivar settled_at: seconds since 1970 at which it was settled; None: it may hold what is not in
        S3.
    """

    tenant_id: str
    size_bytes: int
    settled_at: float | None


@attrs.frozen
class Plan:
    """:ivar remove: copies to remove, in order. :ivar look: copies whose owner S3 must tell.

    :ivar warm_bytes: what warm copies take before anything is removed.
    """

    remove: tuple[str, ...]
    look: tuple[str, ...]
    warm_bytes: int


def plan(
    copies: Iterable[LocalCopy],
    *,
    assigned: AbstractSet[str],
    in_use: AbstractSet[str],
    budget_bytes: int,
    now: float,
) -> Plan:
    """Decide.

    :param assigned: tenants that this node owns. :param in_use: tenants that are loaded, being
        loaded or being stopped: never touched.
    :param budget_bytes: what warm copies may take. :param now: seconds since 1970.
    """
    idle = [copy for copy in copies if copy.tenant_id not in in_use]
    gone: list[str] = []
    warm: list[tuple[float, LocalCopy]] = []
    look: list[str] = []
    for copy in idle:
        away = copy.tenant_id not in assigned
        if copy.settled_at is None:
            look += [copy.tenant_id] if away else []
        elif away and now - copy.settled_at >= KEEP_UNASSIGNED_S:
            gone.append(copy.tenant_id)
        else:
            warm.append((copy.settled_at, copy))
    warm.sort(key=lambda each: (each[1].tenant_id in assigned, each[0], each[1].tenant_id))
    used = total = sum(copy.size_bytes for _, copy in warm)
    for _, copy in warm:
        if used <= budget_bytes:
            break
        used -= copy.size_bytes
        gone.append(copy.tenant_id)
    return Plan(tuple(gone), tuple(look), total)
