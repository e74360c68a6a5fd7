"""Which cluster a bucket belongs to: names, records and decisions. No input or output.

A cluster whose control plane is lost for good is recovered under a new, random cluster id. Members
of the old one may come back from the dead and grant leases to nodes that still listen to them. So
S3 says which cluster id counts, by one object a recovery::

    control/generations/00000001.json    {"generation": 1, "cluster_id", "previous": "", "at"}
    control/generations/00000002.json    {"generation": 2, "cluster_id", "previous": id of 1, "at"}

* Each is written once, by a PUT that succeeds only if there is none; it is never replaced and never
  removed. Of all that claim a number, one wins; a lost answer is settled by reading it back: the
  claim holds if and only if the stored cluster id is ours.
* The newest is the one with the highest number that a listing shows. A node obeys only that one.
* The next number is claimed only by who recovers the cluster that the newest one names.

Shells: ``pbcluster.node.generations`` and ``pbcluster.cli.generations``.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from pbcluster.errors import ConfigError, Conflict, InvalidInput, StorageCorrupt

PREFIX = "control/generations/"
DIGITS = 8
#: A node looks again so long after its last look, at most.
LOOK_INTERVAL_S = 5.0
#: A look that takes longer is given up, and nothing is known.
LOOK_TIMEOUT_S = 5.0
#: So long after a claim each node of the former cluster that gets answers from S3 has ended: a look
#: that was just too early, the pause after it, and the one that finds the claim.
SETTLE_S = LOOK_TIMEOUT_S + LOOK_INTERVAL_S + LOOK_TIMEOUT_S
_SUFFIX = ".json"


class ForeignBucket(ConfigError):
    """The bucket belongs to another cluster than this process's: it must not serve from it."""

    code = "foreign_bucket"


class NotNewest(Conflict):
    """The cluster that is to be recovered is not, or not any more, the one the bucket names."""

    code = "not_newest"


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """One object.

    ``previous`` is the id of the cluster that was recovered, empty for the first. ``at`` is ISO
    8601, for people.
    """

    generation: int
    cluster_id: str
    previous: str
    at: str


def key_of(number: int) -> str:
    """The object of a generation. :raises InvalidInput: an impossible number."""
    if not 0 < number < 10**DIGITS:
        allowed = f"1 to {10**DIGITS - 1}"
        raise InvalidInput(f"generation {number}", field="generation", allowed=allowed)
    return f"{PREFIX}{number:0{DIGITS}}{_SUFFIX}"


def highest(keys: Iterable[str]) -> int:
    """The highest number among the keys below :data:`PREFIX`, 0 if there are none.

    :raises StorageCorrupt: a name that is no generation's; to skip it could be to skip the newest.
    """
    numbers = [0]
    for key in keys:
        word = key.removeprefix(PREFIX).removesuffix(_SUFFIX)
        number = int(word) if word.isascii() and word.isdigit() else 0
        if not 0 < number < 10**DIGITS or key_of(number) != key:
            raise StorageCorrupt(f"{key} in S3 is no generation's name")
        numbers.append(number)
    return max(numbers)


def encode(record: Generation) -> bytes:
    """What is stored."""
    return msgspec.json.encode(record)


def decode(number: int, body: bytes) -> Generation:
    """The record of ``number``. :raises StorageCorrupt: it is not what we write."""
    try:
        record = msgspec.json.decode(body, type=Generation)
    except msgspec.DecodeError as error:
        raise StorageCorrupt(f"{key_of(number)} in S3 is no generation: {error}") from None
    if record.generation != number or not record.cluster_id:
        raise StorageCorrupt(f"{key_of(number)} in S3 is not that generation's record")
    return record


# -- for a node -----------------------------------------------------------------------------------


def first(cluster_id: str, at: str) -> Generation:
    """What a node claims in a bucket that has no generation."""
    return Generation(generation=1, cluster_id=cluster_id, previous="", at=at)


def check_belongs(newest: Generation, cluster_id: str, bucket: str) -> None:
    """The bucket belongs to ``cluster_id``.

    :raises ForeignBucket: it does not; names both ids and says what to do.
    """
    if newest.cluster_id != cluster_id:
        raise ForeignBucket(
            f"the bucket {bucket} belongs to cluster {newest.cluster_id} (generation "
            f"{newest.generation}), but cluster_id in this node's configuration is {cluster_id}: "
            f'set cluster_id = "{newest.cluster_id}" and the addresses of its members if this node '
            "shall serve that cluster, else name another bucket"
        )


# -- for who recovers -----------------------------------------------------------------------------


def following(newest: Generation | None, old_id: str, new_id: str, at: str) -> Generation:
    """What to claim so that ``new_id`` takes the place of ``old_id``.

    :returns: ``newest`` itself if that is what it says already: an earlier try succeeded.
    :raises NotNewest: the bucket does not belong to ``old_id``; names both ids.
    :raises InvalidInput: the new id is empty or the old one.
    """
    if new_id in ("", old_id):
        raise InvalidInput(
            f"the new cluster id is {new_id!r}; allowed: a fresh random one",
            field="cluster_id",
            allowed="a fresh random id",
        )
    if newest is None:
        raise NotNewest(
            f"the bucket belongs to no cluster yet, so {old_id} cannot be replaced by {new_id} in "
            f"it: is it the right bucket? A node of {old_id} claims its bucket when it starts"
        )
    if newest.cluster_id == new_id and newest.previous == old_id:
        return newest
    if newest.cluster_id != old_id:
        raise _not_newest(newest, old_id)
    return Generation(generation=newest.generation + 1, cluster_id=new_id, previous=old_id, at=at)


def check_won(wanted: Generation, stored: Generation) -> None:
    """What is stored under the wanted number is our claim. :raises NotNewest: it is another's."""
    if stored.cluster_id != wanted.cluster_id:
        raise _not_newest(stored, wanted.previous)


def _not_newest(newest: Generation, old_id: str) -> NotNewest:
    number, owner = newest.generation, newest.cluster_id
    if newest.previous == old_id:
        return NotNewest(
            f"cluster {old_id} was recovered already, as {owner} (generation {number}, "
            f"{newest.at}): go on with {owner}, or recover that one"
        )
    return NotNewest(
        f"the bucket belongs to cluster {owner} (generation {number}), not to {old_id}, which is "
        f"to be recovered: take a snapshot of {owner}, or the bucket of {old_id}"
    )
