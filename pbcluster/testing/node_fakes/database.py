"""A tenant's database in the fakes, and how it stands in S3.

It is a list of rows and a transaction number. A sync puts all of it under the epoch's prefix, with
the name that Litestream gives its files.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pbcluster.node.claims import highest_txid, replica_path
from pbcluster.node.s3 import Stored


class Database(msgspec.Struct):
    """data.db: its rows, the number of its last transaction, and the file it is."""

    rows: list[str]
    txid: int = 0
    inode: int = 0


def replica_name(txid: int) -> str:
    """The end of a replica's key, after its prefix, as Litestream names its files."""
    return f"/0000/{1:016x}-{txid:016x}.ltx"


def newest(objects: Mapping[str, Stored], tenant_id: str, epoch: int, txid: int = 0) -> Database:
    """What the replica of an epoch holds.

    :param objects: of the bucket, by key. :param txid: up to this transaction, 0: all of it.
    :returns: an empty database if there is nothing.
    """
    root = replica_path(tenant_id, epoch) + "/"
    txid = txid or highest_txid(tuple(key for key in objects if key.startswith(root)))
    key = replica_path(tenant_id, epoch) + replica_name(txid)
    if key not in objects:
        return Database([])
    return msgspec.msgpack.decode(objects[key].body, type=Database)
