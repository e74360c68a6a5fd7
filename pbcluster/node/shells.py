"""The node's outside in one value: the real one, or in tests one of fakes."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import attrs
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from pbcluster import binaries
from pbcluster.config import NodeConfig, Secrets
from pbcluster.node.claims import S3ClaimStore
from pbcluster.node.directories import NodeDirectories
from pbcluster.node.files.door import Files, FilesConfig
from pbcluster.node.generations import GenerationStore, S3Generations
from pbcluster.node.interfaces import ClaimStore, Replication, TenantDirectories, Workloads
from pbcluster.node.isolation import Isolation
from pbcluster.node.orphans import end_orphans
from pbcluster.node.platform_files import DATA
from pbcluster.node.replication import LitestreamDaemon
from pbcluster.node.s3 import S3Address, S3Objects
from pbcluster.node.tenant_logs import TenantLogs
from pbcluster.node.workload import PocketBaseWorkloads
from pbcluster.wall_clock import unix_ms

NEEDED = ("pocketbase", "litestream")
log = Logger()


@attrs.frozen(kw_only=True)
class Shells:
    """S3, Litestream, PocketBase and the disk.

    :ivar logs: what the tenants' processes printed.
    :ivar prepare: before anything is opened: checks the binaries, locks the data directory, ends
        orphans. Raises ``ConfigError`` or ``ProcessFailed``.
    :ivar close: after everything ended.
    :ivar files: the file gateway; None: uploaded files stay on the disk.
    :ivar isolation: what tenants are kept in; None: they are fakes.
    """

    claims: ClaimStore
    generations: GenerationStore
    replication: Replication
    workloads: Workloads
    directories: TenantDirectories
    prepare: Callable[[], Awaitable[None]]
    close: Callable[[], None]
    files: Files | None = None
    logs: TenantLogs = attrs.field(factory=lambda: TenantLogs(secrets.token_hex(8)))
    isolation: Isolation | None = None


#: Makes them from the reactor and the settings.
MakeShells = Callable[[Any, NodeConfig, Secrets], Shells]


def real_shells(reactor: Any, config: NodeConfig, secrets_: Secrets) -> Shells:
    """S3, Litestream, PocketBase and the disk as they are. Opens no connection yet.

    :param reactor: TCP, time, threads, processes and UNIX sockets.
    :raises ConfigError: a binary is missing, or ``--binary`` is not understood.
    """
    overrides = binaries.parse_overrides(config.binaries)
    paths = {name: binaries.locate(name, overrides) for name in NEEDED}
    address = S3Address(
        endpoint=config.s3_endpoint,
        bucket=config.s3_bucket,
        region=config.s3_region,
        access_key=secrets_.s3_access_key,
        secret_key=secrets_.s3_secret_key,
    )
    objects = S3Objects(reactor, address)
    directories = NodeDirectories(config.data_dir)
    isolation = Isolation(reactor, config, paths["pocketbase"], directories.known)
    logs = TenantLogs(secrets.token_hex(8))

    def printed(tenant_id: str, line: str) -> None:
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        logs.add(tenant_id, reactor.seconds(), stamp, line)

    at_end: list[Callable[[], None]] = [objects.stop, isolation.close]

    async def in_thread(call: Callable[[], Any]) -> Any:
        return await deferToThreadPool(reactor, reactor.getThreadPool(), call)

    async def prepare() -> None:
        at_end.append(directories.lock_node())
        await in_thread(lambda: binaries.verify(NEEDED, config.binaries, config.data_dir))
        ended = await in_thread(lambda: end_orphans(config.data_dir))
        if ended:
            log.warn("ended {ended} processes left by an earlier node", ended=ended)
        await in_thread(isolation.sandbox.prepare)
        isolation.begin()
        pruned = await in_thread(directories.prune_aside)
        if pruned:
            log.info("removed {pruned} old copies that were set aside", pruned=pruned)

    def close() -> None:
        for end in at_end:
            end()

    return Shells(
        claims=S3ClaimStore(objects),
        generations=S3Generations(objects),
        replication=LitestreamDaemon(
            reactor, binary=paths["litestream"], data_dir=config.data_dir, address=address
        ),
        workloads=PocketBaseWorkloads(
            reactor,
            binary=paths["pocketbase"],
            data_dir=config.data_dir,
            lock_fd=directories.lock_fd,
            on_line=printed,
            sandbox=isolation.sandbox,
            connect_ports=isolation.connect_ports,
            more_env=isolation.environment,
        ),
        directories=directories,
        prepare=prepare,
        close=close,
        files=_files(reactor, config, secrets_, address, objects, directories),
        logs=logs,
        isolation=isolation,
    )


def _files(
    reactor: Any,
    config: NodeConfig,
    secrets_: Secrets,
    address: S3Address,
    objects: S3Objects,
    directories: NodeDirectories,
) -> Files | None:
    """The file gateway; None: files stay on this node's disk."""
    if config.files != "s3":
        return None
    return Files(
        reactor,
        FilesConfig(
            address=address,
            tenant_key=secrets_.tenant_key,
            window_s=config.files_window_s,
            default_max_bytes=config.tenant_max_file_bytes,
        ),
        objects,
        unix_ms=unix_ms,
        utc_now=lambda: datetime.now(UTC),
        data_of=lambda tenant_id: directories.path(tenant_id) / DATA,
    )
