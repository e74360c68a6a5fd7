"""How a member's empty store begins: founding a group, joining one, or recovering one.

A file in the data directory (``config.FIRST_START``), which ``init``, ``members add`` or ``members
recover`` wrote, says which. It goes away once the store is written, and with the disk: a store that
is empty without it belonged to a member that forgot its votes and its log, and could undo what was
acknowledged. That one is refused, and comes back under a new id.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec

from pbcluster import saved_state
from pbcluster.config import BEGINNINGS, FIRST_START, RECOVERED
from pbcluster.controlplane.raft_store import RaftStore
from pbcluster.controlplane.registry import Registry
from pbcluster.errors import ConfigError
from pbcluster.raft import ConfState, MemberId, StoredState


def genesis(base_domain: str) -> bytes:
    """The empty registry with which every member of a new group begins, as of log index 1."""
    registry = Registry(base_domain)
    registry.skip(1)
    return registry.to_bytes()


def prepare(
    store: RaftStore, home: Path, cluster_id: str, voters: tuple[MemberId, ...], base_domain: str
) -> None:
    """Make sure that the store holds something to begin with.

    :param home: the member's data directory.
    :param voters: of the group if it is founded or recovered here; equal on all of them.
    :raises ConfigError: the store is empty and this is not the first start, or what it should begin
        with cannot be used.
    """
    marker, saved = home / FIRST_START, home / RECOVERED
    if store.is_new():
        _begin(store, marker, saved, cluster_id, voters, base_domain)
    for file in (marker, saved):
        file.unlink(missing_ok=True)


def _begin(
    store: RaftStore,
    marker: Path,
    saved: Path,
    cluster_id: str,
    voters: tuple[MemberId, ...],
    base_domain: str,
) -> None:
    if not marker.exists():
        raise ConfigError(
            f"the store in {store.directory} is empty, but this member has run before: a member "
            "that lost its disk must not come back under its old id; remove it and add a new one"
        )
    how = marker.read_text(encoding="utf-8").strip() or "found"
    if how not in BEGINNINGS:
        raise ConfigError(f"{marker} says {how!r}; allowed: {', '.join(BEGINNINGS)}")
    if how == "join":
        store.begin(StoredState())
        return
    image = genesis(base_domain)
    if how == "recover":
        image = _recovered(saved, cluster_id, base_domain)
    index = Registry.from_bytes(base_domain, image).applied_index
    conf = ConfState(tuple(sorted(voters)))
    store.begin(StoredState.first(conf, len(image), zlib.crc32(image), index), image)


def _recovered(file: Path, cluster_id: str, base_domain: str) -> bytes:
    """The registry that a group begins with that replaces a lost one."""
    saved = saved_state.read(file)
    if saved.cluster_id == cluster_id:
        raise ConfigError(
            f"{file} is of this very cluster: `pbcluster members recover` makes it new"
        )
    try:
        registry = Registry.from_bytes(base_domain, saved.image)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file} holds no registry: {error}") from None
    registry.roster.forget()
    return registry.to_bytes()
