"""What goes out of the admin API: one type an answer, made from the records. Pure.

A view follows its record: what is appended there is described here. The OpenAPI document is made
from these types; that answers are as they say is held by the tests that read the document.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pbcluster.records import NodeRecord, Record, Role, TenantRecord, json_name


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
