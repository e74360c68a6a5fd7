"""What comes into the admin API: one type a body. The OpenAPI document is made from these. Pure.

Bounds stand in the types as far as JSON Schema can say them; the rest (bytes of a password, a
domain below the base domain) is refused by the routes with 422.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from pbcluster.controlplane.admin_table import Body
from pbcluster.controlplane.moves import MAX_MOVES
from pbcluster.controlplane.rebalancing import AT_ONCE
from pbcluster.platform_tokens import MAX_LIFETIME_S, MIN_LIFETIME_S
from pbcluster.records import (
    MAX_DOMAINS,
    NAME_RULE,
    Durability,
    OnOutage,
    Role,
    TenantLogs,
    TenantQuotas,
    json_name,
)

#: What every JSON number holds exactly.
MAX_NUMBER = 2**53 - 1
EMAIL_RULE = "an e-mail address like ann@example.com"
#: bcrypt looks at 72 bytes; PocketBase wants 8 characters at least.
PASSWORD_RULE = "8 to 71 bytes"
DAY_S = 86400
#: Of a login into a tenant: nobody can revoke it before its end.
MAX_LOGIN_S = 3600
MAX_API_TOKEN_S = 10 * 365 * DAY_S

#: A DNS label without two hyphens at its third place (those are A-labels).
NAME_PATTERN = r"^(?![a-z0-9-]{2}--)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
Name = Annotated[str, Meta(pattern=NAME_PATTERN, description=NAME_RULE)]
ID_PATTERN = r"^[a-z][a-z0-9_-]{0,62}$"
Count = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Amount = Annotated[float, Meta(ge=0, le=MAX_NUMBER)]
Version = Annotated[
    int,
    Meta(ge=0, le=MAX_NUMBER, description="The version that was read; another one is a conflict."),
]
#: One label or more, the last no number.
DOMAIN_PATTERN = (
    r"^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.){1,20}"
    r"(?![0-9]+$)[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$"
)


def _bounded(field: Any) -> tuple[str, Any, Any]:
    kind = Amount if field.type is float else Count
    return field.name, kind, field.default


#: Follows the record: what is appended there is taken here.
Quotas = msgspec.defstruct(
    "Quotas",
    [_bounded(field) for field in msgspec.structs.fields(TenantQuotas)],
    bases=(Body,),
    rename=json_name,
    namespace={"__doc__": "Bounds of a tenant; 0 is the platform's default."},
    module=__name__,
)


class Superuser(Body, frozen=True):
    """The first login of a new tenant."""

    email: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9.!#$%&*+/=?_{|}~-]{1,64}@[A-Za-z0-9.-]{1,190}$",
            description=EMAIL_RULE,
        ),
    ]
    password: Annotated[str, Meta(min_length=8, max_length=71, description=PASSWORD_RULE)]


Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{0,64}$")]


class Placement(Body, frozen=True):
    """Where a tenant must be, and the group whose tenants are spread over nodes; empty: no wish."""

    region: Word = ""
    zone: Word = ""
    spread: Word = ""


class NewTenant(Body, frozen=True, rename=json_name):
    """A tenant to be made."""

    name: Name
    superuser: Superuser | UnsetType = UNSET
    durability: Durability = Durability.SYNC
    durable_reads: bool = False
    on_s3_outage: OnOutage = OnOutage.DEGRADE
    metadata: dict[str, Any] = {}
    quotas: Quotas | UnsetType = UNSET  # type: ignore[valid-type]
    placement: Placement = Placement()


class TenantChange(Body, frozen=True, rename=json_name):
    """What changes of a tenant; what is not there stays."""

    metadata: dict[str, Any] | UnsetType = UNSET
    quotas: Quotas | UnsetType = UNSET  # type: ignore[valid-type]
    custom_domains: (
        Annotated[
            list[Annotated[str, Meta(pattern=DOMAIN_PATTERN, max_length=253)]],
            Meta(max_length=MAX_DOMAINS),
        ]
        | UnsetType
    ) = UNSET
    version: Version = 0
    logs: TenantLogs | UnsetType = UNSET
    durability: Durability | UnsetType = UNSET
    durable_reads: bool | UnsetType = UNSET
    on_s3_outage: OnOutage | UnsetType = UNSET
    #: All wishes it has from then on, for the next time that it needs a node.
    placement: Placement | UnsetType = UNSET


class Rename(Body, frozen=True):
    """Another name."""

    name: Name
    version: Version = 0


class NewDomain(Body, frozen=True):
    """One more custom domain."""

    domain: Annotated[str, Meta(pattern=DOMAIN_PATTERN, max_length=253)]
    version: Version = 0


class NewLogin(Body, frozen=True, rename=json_name):
    """A login into a tenant."""

    email: Annotated[
        str, Meta(max_length=255, description="Whose; empty: its first superuser's.")
    ] = ""
    expires_in: Annotated[int, Meta(ge=60, le=MAX_LOGIN_S, description="Seconds.")] = 900


class NewPlatformToken(Body, frozen=True, rename=json_name):
    """A platform token to be issued; it names a tenant."""

    tenant: Annotated[str, Meta(min_length=1, max_length=100)]
    expires_in: Annotated[
        int, Meta(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S, description="Seconds.")
    ] = 3600


class Rotation(Body, frozen=True):
    """Another key signs."""

    now: bool = False


class Transfer(Body, frozen=True):
    """Another member leads."""

    to: Annotated[str, Meta(min_length=1, max_length=63)]


class GiveAway(Body, frozen=True, rename=json_name):
    """A degraded tenant is let go."""

    accept_loss: bool = False


class NewMigration(Body, frozen=True, rename=json_name):
    """A tenant moves."""

    target_node: Annotated[str, Meta(min_length=1, max_length=63)]


class NewRebalance(Body, frozen=True, rename=json_name):
    """The nodes are evened out."""

    at_once: Annotated[int, Meta(ge=1, le=MAX_MOVES)] = AT_ONCE


class NewMember(Body, frozen=True):
    """A member that joins, as ``MemberRecord``."""

    id: Annotated[str, Meta(pattern=ID_PATTERN)]
    raft: Annotated[str, Meta(pattern=r"^tcp://", max_length=300)]
    requests: Annotated[str, Meta(pattern=r"^tcp://", max_length=300)]
    broadcasts: Annotated[str, Meta(pattern=r"^tcp://", max_length=300)]
    admin: Annotated[str, Meta(pattern=r"^https?://", max_length=300)]
    curve_public: Annotated[str, Meta(pattern=r"^([!-~]{40})?$")] = ""


class NewApiToken(Body, frozen=True, rename=json_name):
    """A token of the admin API to be made."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._@-]{0,61}$",
            description="1 to 62 letters, digits, spaces and . _ @ -",
        ),
    ]
    role: Role
    expires_in: (
        Annotated[int, Meta(ge=60, le=MAX_API_TOKEN_S, description="Seconds; without it: 90 days.")]
        | UnsetType
    ) = UNSET


#: Field → what is allowed, in words, where the type's own words would not help.
RULES = {
    "name": NAME_RULE,
    "email": EMAIL_RULE,
    "password": PASSWORD_RULE,
    "customDomains": f"at most {MAX_DOMAINS} lower-case host names outside the base domain",
    "domain": "a host name like shop.example.com, no IP address",
    "tenant": "a tenant's name or id",
    "expiresIn": f"{MIN_LIFETIME_S} to {MAX_LIFETIME_S} seconds",
    "durability": "sync, async",
    "logs": ", ".join(word.value for word in TenantLogs),
    "role": ", ".join(role.value for role in Role),
    "to": 'a member: {"to": "member_2"}',
    "targetNode": "the id of a node",
    "id": "a new name like member_4",
    "raft": "tcp://HOST:PORT, where the other members hear it",
    "requests": "tcp://HOST:PORT, where nodes and gateways ask it",
    "broadcasts": "tcp://HOST:PORT, where it publishes broadcasts",
    "admin": "http://HOST:PORT, its admin API",
    "curve_public": "its public CURVE key, 40 characters of Z85; empty with plain sockets",
    "tokenID": "jointoken_ and 16 hexadecimal digits",
    "sha256": "64 hexadecimal digits",
    "parcel": "Base64 of at most 32768 bytes",
    "token": "a join token as it was made",
    "curvePublic": "a public CURVE key, 40 characters of Z85",
    "body": "a JSON object",
    "metadata": "an object",
    "quotas": "an object",
    "superuser": "an object with email and password",
}
