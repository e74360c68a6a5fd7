"""Make another cluster id the one that a bucket belongs to: the point of no return of a recovery.

The rules stand in ``pbcluster.generations``. Running nodes of the old id end within seconds of the
claim, once they can read S3.
"""

from __future__ import annotations

from datetime import datetime

from pbcluster import generations
from pbcluster.cli.bucket import Bucket
from pbcluster.errors import S3Unavailable
from pbcluster.generations import Generation
from pbcluster.s3_client import PreconditionFailed, S3Refused


def newest(bucket: Bucket) -> Generation | None:
    """Whom the bucket belongs to, None: nobody yet.

    :raises S3Unavailable: S3 does not answer, or refuses. :raises StorageCorrupt: something is
        there that we do not write.
    """
    number = generations.highest(bucket.keys(generations.PREFIX))
    if not number:
        return None
    found = _read(bucket, number)
    if found is None:
        raise S3Unavailable(f"S3 lists {generations.key_of(number)} but does not have it")
    return found


def claim_next(bucket: Bucket, old_id: str, new_id: str, now: datetime) -> Generation:
    """Claim the generation after the newest for ``new_id``, if the newest is of ``old_id``.

    Repeatable with the same ids, so note ``new_id`` durably before the first call: when it raised
    ``S3Unavailable``, the claim may have been made all the same, and only the same id finds that
    it was.

    :param old_id: the cluster id that is recovered. :param new_id: fresh and random: one that a
        bucket belonged to before would bring its members back.
    :param now: with a time zone; for people.
    :returns: the generation that ``new_id`` holds now.
    :raises NotNewest: the bucket does not belong to ``old_id``: another recovery came first, or it
        is another cluster's bucket; names both ids. Nothing was changed.
    :raises S3Unavailable: S3 does not answer, or refuses: nothing is claimed, or it is not known.
    :raises StorageCorrupt: something is there that we do not write.
    :raises InvalidInput: the new id is empty or the old one.
    """
    seen = newest(bucket)
    wanted = generations.following(seen, old_id, new_id, now.isoformat())
    if wanted is seen:
        return wanted
    key = generations.key_of(wanted.generation)
    try:
        bucket.put_new(key, generations.encode(wanted))
    except S3Refused:
        raise
    except (PreconditionFailed, S3Unavailable):
        pass  # another's is there, or our own whose answer was lost: what is stored decides
    stored = _read(bucket, wanted.generation)
    if stored is None:
        raise S3Unavailable(f"S3 has not stored {key}: try again with the same new id")
    generations.check_won(wanted, stored)
    return stored


def _read(bucket: Bucket, number: int) -> Generation | None:
    body = bucket.get(generations.key_of(number))
    return None if body is None else generations.decode(number, body)
