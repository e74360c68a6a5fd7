"""What goes out of the admin API: one type an answer, made from the records. Pure.

A view follows its record: what is appended there is described here. The OpenAPI document is made
from these types; that answers are as they say is held by the tests that read the document.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from pbcluster.records import MigrationRecord, NodeRecord, Record, Role, TenantRecord, json_name


def _view(name: str, told: str, record: type, without: set[str], further: dict[str, Any]) -> type:
    """A type with all fields of a record but some, and further ones; all of them required."""
    kinds = {
        field.name: field.type
        for field in msgspec.structs.fields(record)
        if field.name not in without
    }
    return msgspec.defstruct(
        name,
        list((kinds | further).items()),
        rename=json_name,
        namespace={"__doc__": told},
        module=__name__,
        kw_only=True,
    )


#: A tenant as operators see it.
TenantView = _view(
    "Tenant",
    "One tenant, its route, and what its node last said of it.",
    TenantRecord,
    {"initial_superuser"},
    {
        "hosts": list[str],
        "node_addr": str,
        "state": str,
        "last_access": str | None,
        "over_quota": dict[str, Any],
        "usage": dict[str, int],
    },
)
NodeView = _view(
    "Node",
    "One node with the soft state that its heartbeats brought.",
    NodeRecord,
    {"start_id"},
    {"assigned_count": int, "alive": bool},
)


class GivenAwayView(Record, frozen=True):
    """A tenant that was let go; its next owner is found as that of any silent node's."""

    id: str
    node_id: str
    degraded: bool


class MigrationRoute(Record, frozen=True):
    """Where a tenant's requests go: 1 is current, 0 the old one."""

    node_id: str
    epoch: int
    priority: int


#: A migration with the routes that it left and how long its phases took, in seconds.
MigrationView = _view(
    "Migration",
    "A tenant's move to another node.",
    MigrationRecord,
    set(),
    {"durations": dict[str, float], "routes": list[MigrationRoute]},
)


class PlacementView(Record, frozen=True):
    """Where a tenant would go if it had to leave, and for every other node why not there."""

    tenant_id: str
    node_id: str
    constraints: dict[str, str]
    next: str
    why: str
    reasons: dict[str, str]


class FoundView(Record, frozen=True):
    """A node that has the tenant."""

    node_id: str
    epoch: int
    state: str


class SurveyView(Record, frozen=True):
    """Who really runs a tenant, who did not answer, and what was put right."""

    tenant_id: str
    node_id: str
    epoch: int
    found: list[FoundView]
    silent: list[str]
    corrected: list[str]


class DrainView(Record, frozen=True):
    """How far a drain is; ``aborted``: tenant → why its last migration was."""

    node_id: str
    status: str
    drain_wanted: bool
    left: int
    migrations: list[MigrationView]  # type: ignore[valid-type]
    aborted: dict[str, str]


class MoveView(Record, frozen=True):
    """A move of a rebalancing."""

    tenant_id: str
    name: str
    source_node: str
    target_node: str


class RebalanceView(Record, frozen=True):
    """The fewest moves that make the nodes even; the first thousand of them."""

    total_moves: int
    moves: list[MoveView]


class RebalancingView(Record, frozen=True):
    """A rebalancing: ``running``, ``done`` or ``ended`` (before the nodes were even, with the
    reason). ``left``: moves that are not done."""

    id: str
    state: str
    started: datetime
    ended: datetime | None
    total_moves: int
    left: int
    at_once: int
    reason: str
    version: int


class Problem(msgspec.Struct):
    """An error, in PocketBase's form: one entry of ``data`` for each wrong field."""

    status: int
    message: str
    data: dict[str, Any]


class Health(msgspec.Struct):
    """Without a token only whether this member serves; with one what it knows."""

    status: str
    leader: bool | str


class MemberView(msgspec.Struct, kw_only=True):
    """A member: its role, and the entries that its log is behind."""

    id: str
    role: str
    voter: bool
    index: int
    behind: int
    state: str
    admin: str


class ApiTokenView(Record, frozen=True):
    """A token of the admin API, without what it is known by."""

    id: str
    name: str
    role: Role
    created: str
    created_by: str
    expires: str | None
    expired: bool


class NewApiTokenView(ApiTokenView, frozen=True):
    """The same with the token itself, shown only now."""

    token: str


class KeyView(Record, frozen=True):
    """A key of platform tokens."""

    kid: str
    status: str
    created: str | None
    retired: str | None
    tokens_until: str | None


class LoginView(msgspec.Struct, rename=json_name):
    """A login into a tenant, shown only now."""

    token: str
    email: str
    record_id: str
    expires: str
    host: str


class LogView(msgspec.Struct, rename=json_name):
    """What a tenant's PocketBase printed; ``cursor`` asks for what comes after it."""

    cursor: str
    lines: list[str]
    missed: int
    node_id: str


class IssuedView(msgspec.Struct):
    """A platform token, shown only now."""

    token: str
    kid: str
    expires: str
    tenant_id: str = msgspec.field(name="tenantID")


class DomainView(msgspec.Struct):
    """A custom domain."""

    domain: str


class MemberJoins(msgspec.Struct):
    """A member that was let in; it has no vote yet."""

    id: str
    voter: bool


class MemberLeft(msgspec.Struct):
    """A member that was taken out."""

    id: str
    removed: bool


class Asked(msgspec.Struct):
    """The member that is asked to lead."""

    to: str
