"""What tells where tenants are, who the members are and which keys verify: questions of gateways,
some of which nodes ask too, orders to gateways, and broadcasts to everybody."""

from __future__ import annotations

from pbcluster.records import MemberRecord
from pbcluster.wire.base import Message

#: Tenants named in one SnapshotRequest.
MAX_SNAPSHOT_TENANTS = 1000


class Route(Message, frozen=True):
    """The way to a tenant. ``address`` is the node's base URL; ``hosts`` all the tenant's names."""

    tenant_id: str
    name: str
    node_id: str
    address: str
    incarnation: int
    epoch: int
    hosts: tuple[str, ...] = ()
    max_body_bytes: int = 0
    priority: int = 1


# -- gateway → control plane -----------------------------------------------------------------------


class LookupRoute(Message, frozen=True):
    """/internal/tenant/route (``place`` false) and /internal/tenant/assign (``place`` true: give it
    a living node now if it has none). Exactly one of the three keys is not empty."""

    tenant_id: str = ""
    name: str = ""
    domain: str = ""
    min_epoch: int = 0
    place: bool = False


class RouteFound(Message, frozen=True):
    """The route, as of log index ``index``."""

    index: int
    route: Route


class SuspectNode(Message, frozen=True):
    """/internal/node/suspect: a gateway cannot reach a node. A hint, never a verdict."""

    node_id: str
    incarnation: int
    reason: str


class SnapshotRequest(Message, frozen=True):
    """/internal/snapshot: today's routes of the named tenants, after a gap in the broadcasts."""

    tenant_ids: tuple[str, ...]


class Snapshot(Message, frozen=True):
    """Routes as of ``index``; tenants asked for that are not among them have none."""

    index: int
    routes: tuple[Route, ...]


class ListMembers(Message, frozen=True):
    """/internal/members: who the control plane's members are now; any member answers."""


class Members(Message, frozen=True):
    """The members of the control plane that vote, as of log index ``index``; none: not all of them
    are known yet. ``gateways`` and ``former_gateways``: ids of those whose requests nodes take, and
    of those that were removed."""

    index: int
    members: tuple[MemberRecord, ...]
    gateways: tuple[str, ...] = ()
    former_gateways: tuple[str, ...] = ()


class ListTokenKeys(Message, frozen=True):
    """/internal/keys: by which keys platform tokens are verified. Any member answers, or, with
    ``newest``, the leader only: a token's key is known to it at once."""

    newest: bool = False


class TokenKey(Message, frozen=True):
    """The public half of a key that signs, or signed, platform tokens.

    ``public`` is a raw Ed25519 key (32 bytes). After ``until`` (Unix seconds) none of its tokens is
    valid any more; 0: it signs now.
    """

    kid: str
    public: bytes
    until: int = 0


class TokenKeys(Message, frozen=True):
    """All keys that verify, as of log index ``index``: what is not among them verifies nothing."""

    index: int
    keys: tuple[TokenKey, ...]


# -- control plane → gateway, unasked --------------------------------------------------------------


class HoldTenant(Message, frozen=True):
    """Hold requests for a tenant until a route of a higher epoch than ``epoch`` is known, the same
    route is confirmed, or ``limit_ms`` have passed. Answered :class:`Ok` once it is held."""

    tenant_id: str
    epoch: int
    limit_ms: int


# -- broadcasts ------------------------------------------------------------------------------------


class Broadcast(Message, frozen=True):
    """One numbered event. ``previous`` is the index of the broadcast before it: a subscriber that
    did not see that one has a gap. A beacon repeats the last with topic ``beacon``."""

    topic: str
    index: int
    previous: int
    tenant_id: str = ""
    node_id: str = ""
    incarnation: int = 0
    route: Route | None = None


TOPICS = (
    "tenant.migrating",
    "tenant.moved",
    "tenant.updated",
    "tenant.deleted",
    "node.up",
    "node.draining",
    "node.down",
    "members.changed",
    "keys.changed",
)

BEACON = "beacon"
