"""Another bucket than the cluster's own: where it is, copying to and from it, and using it instead.

A file names it, so that no secret is an argument::

    endpoint = "https://s3.eu-central-1.amazonaws.com"
    bucket = "pbcluster-copy"
    region = "eu-central-1"
    access_key = "…"
    secret_key = "…"
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from pbcluster import config
from pbcluster.cli import initialise, secret_files, state
from pbcluster.cli.bucket import bucket_of
from pbcluster.cli.copying import Copied, Copier
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.cli.recovering import s3_running
from pbcluster.errors import ConfigError
from pbcluster.s3_client import S3Address

_NEEDED = ("endpoint", "bucket", "access_key", "secret_key")


def read(file: Path) -> S3Address:
    """The bucket that a file names.

    :raises ConfigError: it cannot be read, others may read it, or something is missing.
    """
    content: dict[str, Any] = config.read_toml(file)
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise ConfigError(f"{file} holds keys and may be read by its owner only: chmod 600")
    missing = [name for name in _NEEDED if not isinstance(content.get(name), str)]
    unknown = sorted(set(content) - {*_NEEDED, "region"})
    if missing or unknown:
        allowed = ", ".join((*_NEEDED, "region"))
        raise ConfigError(f"{file}: {(missing or unknown)[0]!r}; it names {allowed}")
    return S3Address(**content)


def copy_to(
    where: ClusterDir, plan: Plan, target: S3Address, shown: Callable[[str], None]
) -> Copied:
    """Copy the cluster's bucket, whose S3 runs. :raises PBClusterError: as :meth:`Copier.copy`."""
    _check_whole(where, plan)
    return Copier(bucket_of(where, plan).address, target, shown).copy()


def copy_from(
    where: ClusterDir, plan: Plan, source: S3Address, shown: Callable[[str], None]
) -> Copied:
    """Copy into the cluster's bucket, while nothing of the cluster runs.

    :raises ConfigError: it runs. :raises PBClusterError: as :meth:`Copier.copy`.
    """
    _check_whole(where, plan)
    _check_stopped(where)
    with s3_running(where, plan, shown):
        return Copier(source, bucket_of(where, plan).address, shown).copy()


def use(where: ClusterDir, plan: Plan, address: S3Address) -> Plan:
    """Have the nodes use this bucket from their next start on, while nothing runs.

    :returns: the plan with it. :raises ConfigError: the cluster runs.
    """
    _check_whole(where, plan)
    _check_stopped(where)
    node = plan.settings.get("node", {}) | {
        "s3_endpoint": config.http_url(address.endpoint),
        "s3_bucket": address.bucket,
        "s3_region": address.region,
    }
    fresh = attrs.evolve(plan, settings=plan.settings | {"node": node})
    keys = {"s3_access_key": address.access_key, "s3_secret_key": address.secret_key}
    secret_files.change(where, plan.of("s3")[0].id, keys)
    initialise.write_all(where, fresh)
    return fresh


def _check_whole(where: ClusterDir, plan: Plan) -> None:
    if plan.joined:
        raise ConfigError(
            f"{where.root} was made by `pbcluster join`: what concerns the bucket is done in the "
            "directory of the first host"
        )


def _check_stopped(where: ClusterDir) -> None:
    if state.supervisor(where) is not None or state.living(where):
        raise ConfigError(
            f"the cluster in {where.root} is running: stop it first with `pbcluster down --dir "
            f"{where.root}`"
        )
