"""The seams between the node's cores and its shells: values and Protocols.

Real shells: ``claims`` (S3), ``replication`` (Litestream), ``workload`` (PocketBase). Fakes of all
three stand in ``pbcluster.testing.node_fakes``. Each call ends by a deadline of its own and raises
an error of ``pbcluster.errors``; "it may have happened" is always told apart from "it did not".
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import attrs
import msgspec

from pbcluster.records import InitialSuperuser


class OwnerState(enum.Enum):
    """What the owner object says of its tenant."""

    SERVING = "serving"
    ARCHIVED = "archived"
    DELETED = "deleted"


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """tenants/<id>/owner.json: the referee's word on who owns a tenant.

    ``nonce`` is random for each claim: two claims are never mistaken for each other.
    """

    epoch: int
    node: str
    incarnation: int
    nonce: str
    state: OwnerState = OwnerState.SERVING


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """tenants/<id>/litestream/<epoch>/READY: this epoch's replica is whole from here on."""

    parent: int
    txid: int
    at: str


@attrs.frozen
class OwnerSeen:
    """The owner object as read: its value and its ETag."""

    owner: Owner
    etag: str


class Written(enum.Enum):
    """What is known after a conditional PUT."""

    WON = "won"
    #: 412: somebody else's object is there, or ours from an attempt whose answer was lost.
    CONFLICT = "conflict"
    #: No answer: read it again.
    UNKNOWN = "unknown"


@attrs.frozen
class Prefixes:
    """The epochs of a tenant that have a prefix in S3.

    :ivar highest: the highest epoch with any object, 0 if none.
    :ivar ready: the highest epoch with READY, 0 if none.
    """

    highest: int
    ready: int


class ClaimStore(Protocol):
    """The objects in S3 that decide who owns a tenant. No call is retried inside."""

    async def check(self) -> None:
        """Two concurrent conditional PUTs have one winner, and a read sees the last write.

        :raises ConfigError: this S3 does not keep the promises that ownership rests on.
        :raises S3Unavailable: it does not answer.
        """

    async def probe(self, node_id: str) -> None:
        """A small write of the node's own: whether S3 takes anything at all.

        :raises S3Refused: it answers, and refuses. :raises S3Unavailable: it does not answer.
        """

    async def read_owner(self, tenant_id: str) -> OwnerSeen | None:
        """The owner object, or None if there is none.

        :raises S3Unavailable: no answer, or a fault of S3's.
        :raises StorageCorrupt: it is not what we write.
        """

    async def write_owner(self, tenant_id: str, owner: Owner, expected_etag: str) -> Written:
        """Conditional PUT: If-Match ``expected_etag``, or If-None-Match * if it is empty."""

    async def prefixes(self, tenant_id: str) -> Prefixes:
        """Which epochs exist. :raises S3Unavailable: it cannot be known now."""

    async def has_database(self, tenant_id: str, epoch: int, database: str) -> bool:
        """Whether the epoch's prefix has anything of a database."""

    async def write_ready(self, tenant_id: str, epoch: int, ready: Ready) -> None:
        """Mark the epoch's replica as whole. Repeatable."""

    async def highest_txid(self, tenant_id: str, epoch: int) -> int:
        """The highest TXID of data.db under the epoch's prefix, 0 if there is none."""


class Replication(Protocol):
    """The one Litestream daemon of the node."""

    async def start(self) -> None:
        """Start the daemon and wait until its socket answers. :raises ProcessFailed:"""

    async def stop(self) -> None:
        """End it; it does a last sync of everything still registered."""

    def when_lost(self, callback: Callable[[str], None]) -> None:
        """``callback(reason)`` when the daemon ended by itself; no sync succeeds from then on until
        it is started and every database registered again."""

    async def restore(self, tenant_id: str, epoch: int, target: Path) -> None:
        """Restore data.db of ``epoch`` to the new file ``target``, checked for integrity.

        :raises StorageCorrupt: it restores, but the check fails. :raises S3Unavailable: else.
        """

    async def register(self, tenant_id: str, epoch: int, database: Path) -> None:
        """Begin to replicate ``database`` under the epoch's prefix."""

    async def unregister(self, database: Path) -> None:
        """Final sync, then stop replicating. Unknown databases are fine."""

    async def sync(self, database: Path, *, timeout_s: float) -> int:
        """Everything committed before this call is in S3 when it returns.

        :returns: the TXID reached.
        :raises S3Unavailable: it cannot be said that it is.
        """

    def local_txid(self, database: Path) -> int:
        """The highest TXID in Litestream's local metadata beside ``database``, 0 if none."""

    def forget(self, database: Path) -> None:
        """Remove that metadata: needed before registering under a new prefix."""


@attrs.frozen(kw_only=True)
class WorkloadSpec:
    """All that a tenant's PocketBase needs.

    :ivar directory: the tenant's directory; the database is ``directory/data/data.db``.
    :ivar encryption_key: 32 characters; goes into the child's environment, never its argv.
    :ivar superuser: create this login (only at the very first start).
    """

    tenant_id: str
    directory: Path
    encryption_key: str = attrs.field(repr=False)
    hosts: tuple[str, ...] = ()
    superuser: InitialSuperuser | None = attrs.field(default=None, repr=False)


class RunningWorkload(Protocol):
    """A PocketBase process that answered its health check."""

    @property
    def host(self) -> str:
        """Loopback address of its listener."""

    @property
    def port(self) -> int:
        """Port of its listener."""

    @property
    def pid(self) -> int:
        """Its process id."""

    def generation(self) -> str:
        """Another one after the process executed itself anew; empty: nothing listens now."""

    async def answers(self) -> bool:
        """Whether its health check answers."""

    async def knows(self, authorization: bytes) -> bool:
        """Whether this value of Authorization is a superuser's."""

    def when_ended(self, callback: Callable[[str], None]) -> None:
        """``callback(reason)`` once it ended, whoever ended it."""

    async def stop(self) -> None:
        """SIGTERM, SIGKILL after a grace period; returns when it is gone."""

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""


class Workloads(Protocol):
    """Starts PocketBase processes."""

    async def start(self, spec: WorkloadSpec) -> RunningWorkload:
        """Start and wait for the health check.

        :raises ProcessFailed: it ended or did not answer in time; says why.
        """


class DirectoryLock(Protocol):
    """flock on a tenant's directory, inherited by its PocketBase: two processes never share one."""

    def release(self) -> None:
        """Give it back."""


class TenantDirectories(Protocol):
    """The node's disk: one directory a tenant, and the note of who claimed it."""

    def path(self, tenant_id: str) -> Path:
        """The tenant's directory (it need not exist)."""

    def lock(self, tenant_id: str) -> DirectoryLock:
        """Create the directory if needed and lock it. :raises Unavailable: somebody holds it."""

    def claim_note(self, tenant_id: str) -> Owner | None:
        """The claim under which the local copy was last served, if it was written since the machine
        started and is readable; else None: the copy may not be trusted."""

    def write_claim_note(self, tenant_id: str, owner: Owner) -> None:
        """Remember it, durably, before the copy is served."""

    def set_aside(self, tenant_id: str) -> Path | None:
        """Move an untrusted copy away, never overwriting one; None if there was none."""

    def database_identity(self, tenant_id: str) -> tuple[int, int] | None:
        """Device and inode of data.db, None if it is missing."""

    def database_position(self, tenant_id: str) -> bytes | None:
        """Changes with each commit to data.db; None: it cannot be told, it may have changed."""

    def known(self) -> tuple[str, ...]:
        """Ids of all tenants that have a directory here."""
