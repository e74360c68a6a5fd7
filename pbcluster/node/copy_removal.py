"""Removing copies from the node's disk, and measuring them.

A copy leaves in two steps: it is renamed into the trash within one call, under its lock, so that
nothing can find half of it; its bytes are removed later, in a thread. What the tenant's process
made below its directory is never followed out of it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from pbcluster.errors import StorageCorrupt
from pbcluster.node.warm_budget import LocalCopy

#: Copies set aside are kept at least so long, and a tenant's newest few longer.
KEEP_ASIDE_S = 7 * 24 * 3600.0
KEEP_ASIDE_COPIES = 2
#: However full the disk is: a copy set aside stays so long, for a person to look at it.
KEEP_ASIDE_AT_LEAST_S = 24 * 3600.0
#: Files of a copy that are counted; one with more is taken for as large as those.
MAX_FILES = 100_000


def settled_at(tenant: Path) -> float | None:
    """When the copy was settled, in seconds since 1970; None: it is not."""
    try:
        return (tenant / "settled").stat(follow_symlinks=False).st_mtime
    except OSError:
        return None


def holds_files(data: Path) -> bool:
    """Whether uploads or backups stand on this disk, which are not in the database's replica."""
    folders = (os.walk(data / name) for name in ("storage", "backups"))
    return any(names for folder in folders for _, _, names in folder)


def discard(tenant: Path, trash: Path, notes: Iterable[str]) -> None:
    """Move a tenant's data into the trash and forget what is noted of it; fine if there is none.

    :raises StorageCorrupt: ``data`` is a link.
    """
    data = tenant / "data"
    if data.is_symlink():
        raise StorageCorrupt(f"{data} should be a directory and is none")
    target = free_name(trash, tenant.name)
    for name in notes:  # first: data without a note is never trusted
        (tenant / name).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        data.rename(target)


def free_name(folder: Path, name: str) -> Path:
    """A path in ``folder`` that is not taken."""
    number = 1
    while (path := folder / f"{name}-{number}").exists():
        number += 1
    return path


def empty(trash: Path) -> int:
    """Remove what is in the trash. :returns: how many copies."""
    gone = 0
    for path in trash.iterdir():
        shutil.rmtree(path, ignore_errors=True)
        gone += not path.exists()
    return gone


def size_of(path: Path) -> int:
    """Bytes on the disk of all regular files below ``path``; links are not followed."""
    total = count = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(folder, name), follow_symlinks=False).st_blocks * 512
            count += 1
            if count >= MAX_FILES:
                return total
    return total


def measure(tenants: Iterable[Path]) -> tuple[LocalCopy, ...]:
    """The copies that are there."""
    return tuple(
        LocalCopy(tenant.name, size_of(tenant), settled_at(tenant))
        for tenant in tenants
        if (tenant / "data").is_dir()
    )


def database_bytes(database: Path) -> int:
    """Size of a database with its log, 0: there is none."""
    total = 0
    for path in (database, database.with_name(f"{database.name}-wal")):
        with contextlib.suppress(OSError):
            total += path.stat(follow_symlinks=False).st_size
    return total


def prune(aside: Path, now: float, most_bytes: int | None) -> int:
    """Remove old copies that were set aside.

    :param now: seconds since 1970. :param most_bytes: what all may take; None: any.
    :returns: how many. A tenant's newest :data:`KEEP_ASIDE_COPIES` stay, and all that are younger
        than :data:`KEEP_ASIDE_S`; over ``most_bytes`` the oldest go first, but none that is younger
        than :data:`KEEP_ASIDE_AT_LEAST_S`.
    """
    by_tenant: dict[str, list[tuple[float, Path]]] = {}
    for path in aside.iterdir():
        changed = path.stat(follow_symlinks=False).st_ctime
        by_tenant.setdefault(path.name.split("-")[0], []).append((changed, path))
    gone = 0
    left: list[tuple[float, Path]] = []
    for copies in by_tenant.values():
        copies.sort()
        for place, (changed, path) in enumerate(copies):
            newest = place >= len(copies) - KEEP_ASIDE_COPIES
            if newest or changed >= now - KEEP_ASIDE_S:
                left.append((changed, path))
            else:
                shutil.rmtree(path, ignore_errors=True)
                gone += 1
    return gone + (_shrink(sorted(left), now, most_bytes) if most_bytes is not None else 0)


def _shrink(copies: list[tuple[float, Path]], now: float, most_bytes: int) -> int:
    sizes = [size_of(path) for _, path in copies]
    used, gone = sum(sizes), 0
    for (changed, path), size in zip(copies, sizes, strict=True):
        if used <= most_bytes or changed >= now - KEEP_ASIDE_AT_LEAST_S:
            break
        shutil.rmtree(path, ignore_errors=True)
        used -= size
        gone += 1
    return gone
