"""Bodies and answers of the admin API about processes that join and leave. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from pbcluster.controlplane.admin_bodies import DAY_S, ID_PATTERN
from pbcluster.controlplane.admin_table import Body
from pbcluster.controlplane.join_tokens import MAX_PARCEL_BYTES
from pbcluster.records import MemberRecord, ProcessRole, Record, json_name

MIN_LIFETIME_S, MAX_LIFETIME_S = 60, 30 * DAY_S
TOKEN_ID_PATTERN = r"^jointoken_[0-9a-f]{16}$"
#: Base64 of the most bytes.
MAX_PARCEL_TEXT = (MAX_PARCEL_BYTES + 2) // 3 * 4
_ENDPOINT = Annotated[str, Meta(pattern=r"^(tcp://|$)", max_length=300)]


class NewJoinToken(Body, frozen=True, rename=json_name):
    """A token that its maker made: known here by its SHA-256, with what is sealed under it."""

    token_id: Annotated[str, Meta(pattern=TOKEN_ID_PATTERN)]
    role: ProcessRole
    id: Annotated[str, Meta(pattern=ID_PATTERN, description="Of the process that may join.")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    parcel: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9+/]*={0,2}$",
            max_length=MAX_PARCEL_TEXT,
            description="Base64; nobody here can open it.",
        ),
    ]
    expires_in: Annotated[int, Meta(ge=MIN_LIFETIME_S, le=MAX_LIFETIME_S, description="Seconds.")]


class JoinRequest(Body, frozen=True, rename=json_name):
    """A process that joins. A member also says where it is reached."""

    token: Annotated[str, Meta(pattern=r"^jointoken_[0-9a-f]{16}\.[A-Za-z0-9_-]{43}$")]
    role: ProcessRole
    id: Annotated[str, Meta(pattern=ID_PATTERN)]
    curve_public: Annotated[str, Meta(pattern=r"^[!-~]{40}$")]
    certificate_request: Annotated[str, Meta(max_length=4000, description="PKCS 10, PEM.")]
    raft: _ENDPOINT = ""
    requests: _ENDPOINT = ""
    broadcasts: _ENDPOINT = ""
    admin: Annotated[str, Meta(pattern=r"^(https?://|$)", max_length=300)] = ""


class JoinTokenView(Record, frozen=True):
    """A join token; ``status`` is open, used or expired."""

    id: str
    role: str
    process_id: str
    status: str
    created: str
    created_by: str
    expires: str
    used: str | None


class JoinedView(msgspec.Struct, kw_only=True, rename=json_name):
    """What a process gets that joined: who the members are, its certificate, its parcel."""

    id: str
    role: str
    cluster_id: str
    members: list[MemberRecord]
    certificate: str
    authority: str
    parcel: str


class AuthorityView(msgspec.Struct):
    """The certificate of the cluster's own authority, PEM."""

    certificate: str


class GatewayView(Record, frozen=True):
    """A gateway that may ask the members; ``joined``: when, if it came by a join token."""

    id: str
    joined: str | None
    join_token: str


class ProcessLeft(msgspec.Struct):
    """A node or gateway that was removed; a node's tenants that were still there are ``left``."""

    id: str
    removed: bool
    left: int
