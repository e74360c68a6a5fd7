"""The deletions of a tenant's files: recorded at once, carried out much later, or not at all.

PocketBase deletes a file before the deletion of its row is durable. So a deletion is only recorded,
as an object of its own whose *name* says everything::

    tenants/<id>/deletes/<epoch, 20 digits>/<number>.<Unix ms>.<bytes>.<identity>/<key in base64>
    tenants/<id>/deletes/<epoch, 20 digits>/COVERED        {"through": number}

What holds:

* A deletion hides the object from the moment it is recorded, in the life that recorded it.
* COVERED is written only after a sync that began after the deletions up to its number were
  recorded, and a look at the owner object after that sync. So whoever claims later restores a
  database that has their rows deleted.
* To a later epoch a deletion *stands* only if it is covered; else its row may be back, so its file
  is too. Under the same epoch (the same node, the same trusted copy) all of them stand.
* Only a standing, covered deletion that is older than the point-in-time window is due.
* An upload under the same key cancels it: the record is removed before the upload is answered.

Pure; ``tenant_files`` and ``collection`` act on it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping

import attrs

EPOCH_DIGITS = 20
COVERED = "COVERED"
#: Longest part of a record's name between two slashes: some stores allow 255 bytes.
_PIECE = 200
_NAME = re.compile(r"(\d{20})/(\d{12})\.(\d{13})\.(\d{1,15})\.([0-9a-f]{16})/([A-Za-z0-9_=/-]+)")
_COVERED = re.compile(rf"(\d{{20}})/{COVERED}")
#: Deletions of a tenant that wait; one more is refused until some are carried out. The listing that
#: reads them back is bounded too.
MAX_WAITING = 50_000


@attrs.frozen(kw_only=True)
class Deletion:
    """One recorded deletion.

    :ivar number: counts within its epoch. :ivar at_ms: Unix milliseconds. :ivar size: bytes of the
        object. :ivar identity: 16 hex digits of which object it was: one that was written later
        under the same key is another. :ivar key: with its bucket, below the tenant's prefix.
    """

    epoch: int
    number: int
    at_ms: int
    size: int
    identity: str
    key: str

    @property
    def name(self) -> str:
        """Its record's key below ``deletes/``."""
        text = base64.urlsafe_b64encode(self.key.encode()).decode()
        pieces = "/".join(text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
        numbers = f"{self.number:012}.{self.at_ms:013}.{self.size}.{self.identity}"
        return f"{self.epoch:0{EPOCH_DIGITS}}/{numbers}/{pieces}"


def read_name(name: str) -> Deletion | None:
    """The deletion that a record's name says, None: it is none of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    epoch, number, at_ms, size, identity, text = match.groups()
    try:
        key = base64.urlsafe_b64decode(text.replace("/", "")).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return Deletion(
        epoch=int(epoch),
        number=int(number),
        at_ms=int(at_ms),
        size=int(size),
        identity=identity,
        key=key,
    )


def covered_name(epoch: int) -> str:
    """Key of an epoch's COVERED below ``deletes/``."""
    return f"{epoch:0{EPOCH_DIGITS}}/{COVERED}"


def covered_epoch(name: str) -> int | None:
    """The epoch whose COVERED has this name, None: it is none."""
    match = _COVERED.fullmatch(name)
    return int(match[1]) if match is not None else None


class Ledger:
    """The deletions of one tenant in one life of its PocketBase.

    :ivar waiting_bytes: of the objects that are hidden.
    """

    def __init__(
        self, epoch: int, recorded: Iterable[Deletion] = (), covered: Mapping[int, int] = {}
    ) -> None:
        """
        :param epoch: of this life. :param recorded: found in S3 at its start, in any order.
        :param covered: epoch → the number in its COVERED.
        """
        self._epoch = epoch
        self._standing: dict[str, tuple[Deletion, ...]] = {}
        self._void: list[Deletion] = []
        self._through = covered.get(epoch, 0)
        self._number = self._through
        self._former: set[tuple[int, int]] = set()
        self.waiting_bytes = 0
        for each in sorted(recorded, key=lambda one: (one.epoch, one.number)):
            own = each.epoch == epoch
            # A later epoch than ours is another owner's: its deletions are not for us to judge.
            if own or (each.epoch < epoch and each.number <= covered.get(each.epoch, 0)):
                self._add(each)
                self._former.add((each.epoch, each.number))
            elif each.epoch < epoch:
                self._void.append(each)
            if own:
                self._number = max(self._number, each.number)

    def __len__(self) -> int:
        return sum(len(each) for each in self._standing.values())

    def __iter__(self) -> Iterator[Deletion]:
        for each in list(self._standing.values()):
            yield from each

    @property
    def number(self) -> int:
        """Of the last deletion that was begun."""
        return self._number

    @property
    def uncovered(self) -> bool:
        """Whether a deletion stands that a sync has yet to cover."""
        return any(each.epoch == self._epoch and each.number > self._through for each in self)

    def hidden(self, key: str) -> bool:
        """Whether the object is deleted as far as the tenant is concerned."""
        return key in self._standing

    def of(self, key: str) -> tuple[Deletion, ...]:
        """All standing deletions of a key."""
        return self._standing.get(key, ())

    def begin(self, key: str, *, identity: str, size: int, at_ms: int) -> Deletion:
        """A new deletion, to be recorded; it stands only from :meth:`recorded` on."""
        self._number += 1
        return Deletion(
            epoch=self._epoch,
            number=self._number,
            at_ms=at_ms,
            size=size,
            identity=identity,
            key=key,
        )

    def recorded(self, deletion: Deletion) -> None:
        """Its record is in S3."""
        self._add(deletion)

    def covered(self, through: int) -> None:
        """COVERED of this epoch says ``through``."""
        self._through = max(self._through, through)

    def gone(self, deletion: Deletion) -> None:
        """Its record was removed: it was carried out, or cancelled."""
        left = tuple(each for each in self.of(deletion.key) if each != deletion)
        if len(left) < len(self.of(deletion.key)):
            self.waiting_bytes -= deletion.size
        self._former.discard((deletion.epoch, deletion.number))
        if left:
            self._standing[deletion.key] = left
        else:
            self._standing.pop(deletion.key, None)

    def take_void(self, limit: int) -> list[Deletion]:
        """Deletions that no epoch can make good any more: their records are to be removed."""
        taken, self._void = self._void[:limit], self._void[limit:]
        return taken

    def due(self, now_ms: int, window_ms: int, limit: int) -> list[Deletion]:
        """Deletions that may be carried out now, the oldest first."""
        found = [
            each
            for each in self
            if each.at_ms + window_ms <= now_ms
            and (each.epoch < self._epoch or each.number <= self._through)
        ]
        return sorted(found, key=lambda one: (one.epoch, one.number))[:limit]

    def contested(self, key: str, now_ms: int, window_ms: int) -> bool:
        """Whether a former life may be carrying out a deletion of the key just now."""
        return any(
            (each.epoch, each.number) in self._former and each.at_ms + window_ms <= now_ms
            for each in self.of(key)
        )

    def _add(self, deletion: Deletion) -> None:
        self._standing[deletion.key] = (*self.of(deletion.key), deletion)
        self.waiting_bytes += deletion.size
