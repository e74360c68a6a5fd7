"""The seams between the node's cores and its shells: values and Protocols.

Real shells: ``claims`` (S3), ``replication`` (Litestream), ``workload`` (PocketBase). Fakes of all
three stand in ``pbcluster.testing.node_fakes``. Each call ends by a deadline of its own and raises
an error of ``pbcluster.errors``; "it may have happened" is always told apart from "it did not".
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import attrs
import msgspec

from pbcluster.node.warm_budget import LocalCopy
from pbcluster.records import InitialSuperuser, TenantLogs, TenantQuotas


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


@attrs.frozen
class EpochSeen:
    """One epoch's prefix in S3. :ivar ready: its READY, None if it has none."""

    epoch: int
    ready: Ready | None


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

    async def epochs(self, tenant_id: str) -> tuple[EpochSeen, ...]:
        """All epochs that have a prefix, with their READYs, in order."""

    async def remove_epoch(self, tenant_id: str, epoch: int) -> bool:
        """Remove some objects of an epoch, its READY first. Repeatable.

        :returns: whether nothing is left of it.
        """

    async def remove_data(self, tenant_id: str) -> bool:
        """Remove some objects of a tenant, all but ``owner.json``. Repeatable.

        :returns: whether nothing is left but that.
        """


class Replication(Protocol):
    """The one Litestream daemon of the node."""

    async def start(self) -> None:
        """Start the daemon and wait until its socket answers. :raises ProcessFailed:"""

    async def stop(self) -> None:
        """End it; it does a last sync of everything still registered."""

    def when_lost(self, callback: Callable[[str], None]) -> None:
        """``callback(reason)`` when the daemon ended by itself; no sync succeeds from then on until
        it is started and every database registered again."""

    def waiting_since(self) -> float | None:
        """When the oldest sync began that is under way; None: none is."""

    async def end_hanging(self) -> None:
        """End a daemon that hangs, without a last sync; it counts as ended by itself."""

    async def restore(self, tenant_id: str, epoch: int, target: Path, txid: int = 0) -> None:
        """Restore data.db of ``epoch`` to the new file ``target``, checked for integrity.

        :param txid: as it was after this transaction; 0: the newest.
        :raises StorageCorrupt: it restores, but the check fails. :raises S3Unavailable: else.
        """

    async def register(self, tenant_id: str, epoch: int, database: Path) -> None:
        """Begin to replicate ``database`` under the epoch's prefix."""

    async def unregister(self, database: Path) -> bool:
        """Final sync, then stop replicating. Unknown databases are fine.

        :returns: whether it was replicated until now, so that all of it is in S3. Never True after
            one that failed: then it must be registered and synced first.
        :raises S3Unavailable: it cannot be said that the last sync succeeded.
        """

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
    :ivar logs: what it logs into its own database.
    :ivar settings: PocketBase's settings that are set at each start, by its own names; they hold
        the tenant's key of the file gateway.
    :ivar quotas: the tenant's; 0: the node's default.
    :ivar connect_ports: TCP ports of the node's services for tenants, which it may connect to.
    """

    tenant_id: str
    directory: Path
    encryption_key: str = attrs.field(repr=False)
    hosts: tuple[str, ...] = ()
    superuser: InitialSuperuser | None = attrs.field(default=None, repr=False)
    logs: TenantLogs = TenantLogs.ERRORS
    settings: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    quotas: TenantQuotas = TenantQuotas()
    connect_ports: tuple[int, ...] = ()


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

    async def ask(self, what: str, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask one of the platform's own routes in it (``platform/pbcluster.pb.js``). What comes
        back is the tenant's word: its hooks run in the same process.

        :raises ProcessFailed: no answer in time, or none that could be one.
        """


class Workloads(Protocol):
    """Starts PocketBase processes."""

    async def start(self, spec: WorkloadSpec) -> RunningWorkload:
        """Start and wait for the health check.

        :raises ProcessFailed: it ended or did not answer in time; says why.
        """


@attrs.frozen
class FilesAccess:
    """How a tenant's PocketBase reaches its files.

    :ivar settings: PocketBase's own, of where it keeps files and backups.
    :ivar port: loopback port of the file gateway.
    """

    settings: Mapping[str, Any] = attrs.field(repr=False)
    port: int = 0


class TenantFilesDoor(Protocol):
    """Where the files of a node's tenants are (``node.files``)."""

    async def open(self, owner: Any) -> FilesAccess:
        """A tenant's PocketBase is about to start, under a claim.

        :param owner: the tenant, a ``node.files.tenant_files.FilesOwner``.
        :raises PBClusterError: files of its disk could not be taken over.
        """

    def close(self, owner: Any) -> None:
        """Its PocketBase ended."""

    async def reinstate_for(self, tenant_id: str, backup: str) -> int:
        """A backup is restored: files that were deleted since it was made are there again.

        :param backup: its name; empty: unknown, so all come back that are still in S3.
        :returns: how many came back. :raises PBClusterError: not all of them are back.
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

    def settle(self, tenant_id: str) -> None:
        """Remember that all of the copy is in S3 and nothing runs on it."""

    def unsettle(self, tenant_id: str) -> None:
        """Forget that, durably: something is about to run on it."""

    def is_settled(self, tenant_id: str) -> bool:
        """Whether it is remembered."""

    def discard(self, tenant_id: str, *, whole: bool = False) -> None:
        """Take the copy away for good, at once; its bytes go later (:meth:`empty_trash`). The
        caller holds the lock, and gives it back at once if the ``whole`` directory goes, hooks
        and all."""

    def discard_aside(self, aside: Path) -> None:
        """As :meth:`discard`, of what :meth:`set_aside` gave."""

    def copies(self) -> tuple[LocalCopy, ...]:
        """All copies, with their sizes. Takes long: call it in a thread."""

    def empty_trash(self) -> int:
        """Remove what was discarded. Takes long: call it in a thread. :returns: how many copies."""

    def prune_aside(self, most_bytes: int | None = None) -> int:
        """Remove old copies that were set aside, and what is over ``most_bytes`` of them. Takes
        long: call it in a thread. :returns: how many."""

    def room_bytes(self) -> int:
        """Bytes that are free on the disk."""

    def database_identity(self, tenant_id: str) -> tuple[int, int] | None:
        """Device and inode of data.db, None if it is missing."""

    def database_bytes(self, tenant_id: str) -> int:
        """What data.db and its write-ahead log take, in bytes; 0: there is none."""

    def has_wal(self, tenant_id: str) -> bool:
        """Whether a write-ahead log with content lies beside data.db."""

    def database_position(self, tenant_id: str) -> bytes | None:
        """Changes with each commit to data.db; None: it cannot be told, it may have changed."""

    def known(self) -> tuple[str, ...]:
        """Ids of all tenants that have a directory here."""
