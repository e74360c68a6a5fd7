"""JSON of the admin API: bodies checked field by field, records shown without secrets.

Answers have PocketBase's shapes: an error is ``{"status", "message", "data"}`` with one entry of
``data`` for each wrong field, a list is ``{"page", "perPage", "totalItems", "totalPages",
"items"}``. Pure: values in, values out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from pbcluster.controlplane.admin_bodies import PASSWORD_RULE, RULES, Placement, Superuser
from pbcluster.controlplane.admin_body import parse
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.registry import Registry
from pbcluster.errors import InvalidInput, NotFound, PBClusterError, Unavailable, Unprocessable
from pbcluster.records import (
    MAX_METADATA_BYTES,
    NodeRecord,
    NodeStatus,
    TenantQuotas,
    TenantRecord,
    json_name,
)

__all__ = ["RULES", "checked", "error_body", "parse"]


def error_body(error: PBClusterError) -> dict[str, Any]:
    """PocketBase's form of an error."""
    field = error.data.get("field")
    data: dict[str, Any] = {}
    if field:
        data[field] = {"code": error.code, "message": error.message}
    extra = {k: v for k, v in error.data.items() if k not in ("field", "allowed")}
    if isinstance(error, Unavailable):
        # By this a program tells why, and whether to repeat it.
        extra["code"] = error.code
    return {"status": error.status, "message": error.message, "data": data | extra}


def checked(value: Any, field: str, known: Mapping[str, type | tuple[type, ...]]) -> dict[str, Any]:
    """``value`` if it is an object that holds known fields of the right types only."""
    if not isinstance(value, dict):
        raise InvalidInput(f"{field} must be a JSON object", field=field, allowed="an object")
    for name, content in value.items():
        allowed = ", ".join(known)
        if name not in known:
            raise InvalidInput(
                f"unknown field {name!r}; allowed are: {allowed}", field=name, allowed=allowed
            )
        wanted = known[name]
        if not isinstance(content, wanted) or (isinstance(content, bool) and wanted is not bool):
            kinds = wanted if isinstance(wanted, tuple) else (wanted,)
            told = " or ".join(_KINDS[kind] for kind in kinds)
            raise InvalidInput(f"{name} must be {told}", field=name, allowed=told)
    return value


_KINDS: dict[type, str] = {
    str: "a string",
    dict: "an object",
    list: "a list",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def check_metadata(value: dict[str, Any]) -> dict[str, Any]:
    """Metadata that can be kept. :raises Unprocessable: it cannot."""
    rule = f"at most {MAX_METADATA_BYTES} bytes of JSON, whole numbers of 64 bits"
    try:
        msgspec.msgpack.encode(value)
        fine = len(json.dumps(value)) <= MAX_METADATA_BYTES
    except (OverflowError, RecursionError):
        fine = False
    if not fine:
        raise Unprocessable(f"metadata: {rule} are allowed", field="metadata", allowed=rule)
    return value


def quotas_of(given: Any) -> TenantQuotas:
    """The record of a body's quotas."""
    return TenantQuotas(**msgspec.structs.asdict(given))


def placement_of(given: Placement) -> dict[str, str]:
    """The record's placement constraints of a body's."""
    return {name: word for name, word in msgspec.structs.asdict(given).items() if word}


def login_of(given: Superuser | msgspec.UnsetType) -> tuple[str, str]:
    """E-mail address and password, both empty if there are none.

    :raises Unprocessable: the password has too many bytes, or one that cannot be.
    """
    if isinstance(given, msgspec.UnsetType):
        return "", ""
    if not 8 <= len(given.password.encode()) <= 71 or "\x00" in given.password:
        raise Unprocessable(
            f"password must have {PASSWORD_RULE}", field="password", allowed=PASSWORD_RULE
        )
    return given.email, given.password


def tenant_json(
    registry: Registry, liveness: Liveness, tenant: TenantRecord, failure: str = ""
) -> dict[str, Any]:
    """A tenant as operators see it: its record, its route, and what its node last said of it."""
    shown: dict[str, Any] = msgspec.to_builtins(tenant)
    del shown["initialSuperuser"]
    shown["hosts"] = list(registry.hosts_of(tenant))
    try:
        shown["nodeAddr"] = registry.route(tenant).address
    except NotFound:
        shown["nodeAddr"] = ""
    usage = liveness.usage(tenant.node_id, tenant.id)
    shown["state"] = usage.state if usage is not None else ""
    access = usage.last_access if usage is not None else None
    shown["lastAccess"] = access and access.isoformat(timespec="milliseconds")
    shown["lastError"] = failure or (usage.error if usage is not None else "")
    shown["overQuota"] = over_quota(tenant.quotas, usage)
    shown["usage"] = {
        "dbBytes": usage.db_bytes if usage is not None else 0,
        "fileBytes": usage.file_bytes if usage is not None else 0,
        "requests": usage.request_count if usage is not None else 0,
    }
    return shown


#: Quota → field of what a node reports of a tenant.
_USED = {"max_db_bytes": "db_bytes", "max_file_bytes": "file_bytes", "memory_bytes": "memory_bytes"}


def over_quota(quotas: TenantQuotas, usage: Any) -> dict[str, Any]:
    """Quotas that are below what is in use: they are accepted, and this says so.

    :param usage: a node's report of the tenant, None: there is none.
    """
    found: dict[str, Any] = {}
    for quota, field in _USED.items():
        most, used = getattr(quotas, quota), getattr(usage, field, 0)
        if most and used > most:
            found[json_name(quota)] = {"quota": most, "used": used}
    return found


def node_json(
    registry: Registry, liveness: Liveness, node: NodeRecord, now: float, wall: datetime
) -> dict[str, Any]:
    """A node as operators see it, with the soft state that its heartbeats brought."""
    shown: dict[str, Any] = msgspec.to_builtins(node)
    del shown["startID"]
    shown["assignedCount"] = registry.count_of(node.id)
    shown["alive"] = liveness.alive(node.id)
    last = liveness.last_heartbeat(node.id)
    if last is not None:
        at, beat = last
        seen = datetime.fromtimestamp(wall.timestamp() - (now - at), UTC)
        if node.status is NodeStatus.HEALTHY and beat.status == NodeStatus.DEGRADED.value:
            shown["status"] = beat.status
        shown["lastHeartbeat"] = seen.isoformat(timespec="milliseconds")
        shown["activeCount"] = beat.active_tenants
        shown["cachedCount"] = beat.cached_tenants
        shown["resources"] = msgspec.to_builtins(beat.resources)
        shown["cache"] = {"hits": beat.hits, "misses": beat.misses, "evictions": beat.evictions}
    return shown
