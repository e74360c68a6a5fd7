"""Restore the replica of a tenant under writers again and again; count bad and incomplete ones.

    python -m pbcluster.testing.soak_litestream --minutes 60

A Litestream that lets go of the checkpoints which the application wants drops frames of the WAL
without a word: the replica is corrupt, or rows that were acknowledged are not in it. Light load
hides that, so writers write without a pause while, every few seconds, the replica in S3 is restored
into a new file, checked whole, and held against every row acknowledged before the restore began.
The first bad one ends the run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import click

from pbcluster import binaries
from pbcluster.cli.bucket import Bucket, bucket_of
from pbcluster.node.claims import epochs_prefix
from pbcluster.node.replication import replica_url
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import COLLECTION, Client, Workload, prepare

EMAIL = "soak@example.com"
PASSWORD = "a password for the soak"
TENANT = "soak"
WRITERS = 8
RESTORE_TIMEOUT_S = 120.0
#: Between two restores.
PAUSE_S = 2.0


class Broken(Exception):
    """A replica is corrupt or incomplete."""


@attrs.define
class Found:
    """What a run came to.

    :ivar acked: rows acknowledged by then, each held against every later restore.
    """

    restores: int = 0
    acked: int = 0


def ready_epoch(bucket: Bucket, tenant_id: str) -> int:
    """The epoch that a claim would restore from now: the highest with READY. The control plane's
    record may be behind it. :raises Broken: there is none."""
    keys = bucket.keys(epochs_prefix(tenant_id))
    found = [int(key.split("/")[-2]) for key in keys if key.endswith("/READY")]
    if not found:
        raise Broken(f"no epoch of {tenant_id} is ready in S3")
    return max(found)


def restored_rows(cluster: RealCluster, name: str, into: Path) -> dict[str, str]:
    """Restore the tenant's current epoch and read its rows. :raises Broken: it is corrupt."""
    with contextlib.closing(sqlite3.connect(restored(cluster, name, into))) as database:
        return dict(database.execute(f"SELECT id, value FROM {COLLECTION}"))


def restored(cluster: RealCluster, name: str, into: Path, database_name: str = "data.db") -> Path:
    """A database of a tenant's current epoch, from S3, checked whole.

    :param into: an empty directory. :raises Broken: it is corrupt, or cannot be had.
    """
    tenant_id = str(cluster.admin.tenant(name)["id"])
    bucket = bucket_of(cluster.where, cluster.plan)
    address = bucket.address
    url = replica_url(address, tenant_id, ready_epoch(bucket, tenant_id), database_name)
    env = {
        "PATH": os.environ.get("PATH", ""),
        "LITESTREAM_ACCESS_KEY_ID": address.access_key,
        "LITESTREAM_SECRET_ACCESS_KEY": address.secret_key,
    }
    target = into / "restored.db"
    program = str(binaries.locate("litestream"))
    argv = [program, "restore", "-o", str(target), "-integrity-check", "full", url]
    # A file that retention removes just then is no fault: the second try finds the newer one.
    for attempt in (1, 2):
        done = subprocess.run(
            argv, env=env, capture_output=True, text=True, timeout=RESTORE_TIMEOUT_S, check=False
        )
        if not done.returncode:
            break
        for rest in into.iterdir():
            rest.unlink()
        if attempt == 2 or "integrity" in done.stderr:
            raise Broken(f"the replica of {name} cannot be restored: {done.stderr[-2000:]}")
    with contextlib.closing(sqlite3.connect(target)) as database:
        checked = database.execute("PRAGMA integrity_check").fetchall()
        if checked != [("ok",)]:
            raise Broken(f"the replica of {name} is not whole: {checked[:5]}")
    return target


def one_restore(cluster: RealCluster, name: str, acked: dict[str, str]) -> None:
    """:raises Broken: the replica is corrupt, or lacks a row of ``acked``."""
    into = Path(tempfile.mkdtemp(prefix="pbcluster-soak-"))
    try:
        rows = restored_rows(cluster, name, into)
    finally:
        shutil.rmtree(into)
    missing = [key for key, value in acked.items() if rows.get(key) != value]
    if missing:
        raise Broken(f"{len(missing)} acknowledged rows of {name} are not in S3: {missing[:10]}")


def soak(seconds: float, tell: Callable[[str], object] = print) -> Found:
    """Run it. :param tell: called with each line of progress. :raises Broken: see the module."""
    found = Found()
    with RealCluster(nodes=1, members=1) as cluster:
        cluster.start()
        cluster.create_tenant(TENANT, EMAIL, PASSWORD)
        host = cluster.host(TENANT)
        client = Client(cluster.gateway_url, host)
        client.sign_in(EMAIL, PASSWORD)
        prepare(client)
        workload = Workload(cluster.gateway_url, host, "s", writers=WRITERS, readers=1)
        until = time.monotonic() + seconds
        with workload.running() as journal:
            workload.wait_for_acks(20)
            while time.monotonic() < until or not found.restores:
                time.sleep(PAUSE_S)
                acked = dict(journal.acked)
                one_restore(cluster, TENANT, acked)
                journal.events.clear()  # hours of them would fill the memory
                found.restores, found.acked = found.restores + 1, len(acked)
                tell(f"restore {found.restores}: whole, all of {found.acked} rows in it")
    return found


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(0, 10_000))
def main(minutes: float) -> None:
    """The command."""
    try:
        found = soak(minutes * 60, click.echo)
    except Broken as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{found.restores} restores, 0 bad; {found.acked} rows acknowledged, 0 missing")


if __name__ == "__main__":
    main()
