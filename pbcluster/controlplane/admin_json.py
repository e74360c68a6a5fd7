"""JSON of the admin API: bodies checked field by field, records shown without secrets.

Answers have PocketBase's shapes: an error is ``{"status", "message", "data"}`` with one entry of
``data`` for each wrong field, a list is ``{"page", "perPage", "totalItems", "totalPages",
"items"}``. Pure: values in, values out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from pbcluster.controlplane.domains import FIELD, custom_domains
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.registry import Registry
from pbcluster.errors import CallerError, InvalidInput, NotFound, PBClusterError, Unavailable
from pbcluster.records import (
    MAX_METADATA_BYTES,
    Durability,
    NodeRecord,
    NodeStatus,
    OnOutage,
    TenantQuotas,
    TenantRecord,
    check_name,
)

MAX_PER_PAGE = 500
_EMAIL = re.compile(r"[^@\s\x00-\x1f\"'<>\\]{1,64}@[A-Za-z0-9.-]{1,190}")
EMAIL_RULE = "an e-mail address like ann@example.com"
#: bcrypt looks at 72 bytes; PocketBase wants 8 characters at least.
PASSWORD_RULE = "8 to 71 bytes"


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


@attrs.frozen
class NewTenant:
    """A checked body of POST /api/cp/tenants."""

    name: str
    durability: Durability
    metadata: dict[str, Any]
    quotas: TenantQuotas
    email: str
    password: str = attrs.field(repr=False)
    durable_reads: bool = False
    on_s3_outage: OnOutage = OnOutage.DEGRADE


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


def parse(body: bytes) -> Any:
    """Decoded JSON. :raises CallerError: it is none."""
    try:
        value = json.loads(body, parse_constant=_no_constant)
        json.dumps(value).encode()
        msgspec.msgpack.encode(value)
    except OverflowError:
        raise CallerError("the body has a whole number of more than 64 bits") from None
    except (ValueError, RecursionError):
        raise CallerError("the body is not valid JSON") from None
    return value


def _no_constant(name: str) -> Any:
    """NaN and Infinity are Python's, not JSON's (RFC 8259 section 6)."""
    raise ValueError(name)


def new_tenant(body: bytes) -> NewTenant:
    """Check the body of a creation. :raises InvalidInput: names the field and what is allowed."""
    fields: dict[str, type] = {"name": str, "superuser": dict, "metadata": dict, "quotas": dict}
    fields |= _DURABILITY_FIELDS
    value = checked(parse(body), "body", fields)
    if "name" not in value:
        raise InvalidInput("name is missing", field="name", allowed="a name")
    email, password = _superuser(value.get("superuser"))
    return NewTenant(
        name=check_name(value["name"]),
        durability=_durability(value.get("durability", "sync")),
        metadata=_metadata(value.get("metadata", {})),
        quotas=_quotas(value.get("quotas", {})),
        email=email,
        password=password,
        durable_reads=value.get("durableReads", False),
        on_s3_outage=_on_outage(value.get("onS3Outage", "degrade")),
    )


@attrs.frozen
class TenantChange:
    """A checked body of PUT /api/cp/tenants/{id}; None: leave it."""

    metadata: dict[str, Any] | None
    quotas: TenantQuotas | None
    custom_domains: tuple[str, ...] | None
    version: int
    durability: Durability | None = None
    durable_reads: bool | None = None
    on_s3_outage: OnOutage | None = None


def tenant_change(body: bytes, base_domain: str) -> TenantChange:
    """Check the body of a change. :raises InvalidInput: names the field and what is allowed."""
    fields = {"metadata": dict, "quotas": dict, FIELD: list, "version": int, **_DURABILITY_FIELDS}
    value = checked(parse(body), "body", fields)
    return TenantChange(
        metadata=_metadata(value["metadata"]) if "metadata" in value else None,
        quotas=_quotas(value["quotas"]) if "quotas" in value else None,
        custom_domains=custom_domains(value[FIELD], base_domain) if FIELD in value else None,
        version=value.get("version", 0),
        durability=_durability(value["durability"]) if "durability" in value else None,
        durable_reads=value.get("durableReads"),
        on_s3_outage=_on_outage(value["onS3Outage"]) if "onS3Outage" in value else None,
    )


_DURABILITY_FIELDS: dict[str, type] = {"durability": str, "durableReads": bool, "onS3Outage": str}


def give_away(body: bytes) -> None:
    """:raises InvalidInput: the body of a giving away is not ``{"acceptLoss": true}``."""
    value = checked(parse(body), "body", {"acceptLoss": bool})
    if value.get("acceptLoss") is not True:
        raise InvalidInput(
            "giving a degraded tenant away loses what only its node has: say acceptLoss",
            field="acceptLoss",
            allowed="true",
        )


def _superuser(value: Any) -> tuple[str, str]:
    if value is None:
        return "", ""
    given = checked(value, "superuser", {"email": str, "password": str})
    email, password = given.get("email", ""), given.get("password", "")
    if not _EMAIL.fullmatch(email):
        raise InvalidInput(f"email must be {EMAIL_RULE}", field="email", allowed=EMAIL_RULE)
    if not 8 <= len(password.encode()) <= 71 or "\x00" in password:
        raise InvalidInput(
            f"password must have {PASSWORD_RULE}", field="password", allowed=PASSWORD_RULE
        )
    return email, password


def _durability(value: str) -> Durability:
    try:
        return Durability(value)
    except ValueError:
        raise InvalidInput(
            f"durability {value!r} is not allowed: sync or async",
            field="durability",
            allowed="sync, async",
        ) from None


def _on_outage(value: str) -> OnOutage:
    try:
        return OnOutage(value)
    except ValueError:
        raise InvalidInput(
            f"onS3Outage {value!r} is not allowed: degrade or reject",
            field="onS3Outage",
            allowed="degrade, reject",
        ) from None


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(value)) > MAX_METADATA_BYTES:
        rule = f"at most {MAX_METADATA_BYTES} bytes of JSON"
        raise InvalidInput(f"metadata: {rule} are allowed", field="metadata", allowed=rule)
    return value


def _quotas(value: dict[str, Any]) -> TenantQuotas:
    names = {field.encode_name: field for field in msgspec.structs.fields(TenantQuotas)}
    kinds: dict[str, type | tuple[type, ...]] = {
        name: (int, float) if field.type is float else int for name, field in names.items()
    }
    checked(value, "quotas", kinds)
    for name, number in value.items():
        if not 0 <= number < 2**53:
            raise InvalidInput(f"{name} must be from 0 to 2^53", field=name, allowed="0 to 2^53")
    return TenantQuotas(**{names[name].name: number for name, number in value.items()})


def page_of(query: Mapping[bytes, list[bytes]]) -> tuple[int, int]:
    """``page`` (from 1) and ``perPage`` (1 to 500, default 30) of a list's query."""
    found = []
    for name, default, most in (("page", 1, 1_000_000), ("perPage", 30, MAX_PER_PAGE)):
        text = query.get(name.encode(), [b""])[0].decode("ascii", "replace")
        rule = f"a whole number from 1 to {most}"
        if text and not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most):
            raise InvalidInput(f"{name} must be {rule}", field=name, allowed=rule)
        found.append(int(text) if text else default)
    return found[0], found[1]


def listing(items: list[Any], page: int, per_page: int) -> dict[str, Any]:
    """One page of ``items``."""
    begin = (page - 1) * per_page
    return {
        "page": page,
        "perPage": per_page,
        "totalItems": len(items),
        "totalPages": -(-len(items) // per_page),
        "items": items[begin : begin + per_page],
    }


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
    return shown


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
