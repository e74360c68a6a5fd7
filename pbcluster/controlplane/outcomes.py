"""What repeated commands came to: part of the registry, changed in log order only. Pure.

What holds: a command with an idempotency key is carried out once. A repetition gets the outcome of
the first, as long as that is remembered. After that its key alone is known, by a hash of it, for
several times as long: such a repetition is refused, not guessed and not done again. Whose key is
not even known by then is taken for new; no client of ours repeats for a hundredth of that time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import msgspec

from pbcluster import wire
from pbcluster.errors import SessionExpired

#: Outcomes that are remembered. At 4,000 changes a second, nearly what a group takes, this is 15 s;
#: a client repeats for at most 10 s.
MAX_OUTCOMES = 60_000
#: Further keys of which it is known that they were used.
MAX_SPENT = 240_000
#: Bytes of a key's hash: two of so many keys meet with a chance of 1 in 10^8.
_HASH_BYTES = 8


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a command did: the ids and numbers it made, or its error."""

    index: int
    tenant_id: str = ""
    epoch: int = 0
    incarnation: int = 0
    error: wire.ErrorReply | None = None


class Outcomes:
    """Key → outcome of the newest commands, and hashes of the keys before them."""

    def __init__(self, newest: Iterable[tuple[str, Outcome]] = (), spent: bytes = b"") -> None:
        """
        :param newest: as :meth:`newest` gave it. :param spent: as :meth:`spent` gave it.
        """
        self._newest: dict[str, Outcome] = dict(newest)
        hashes = (spent[at : at + _HASH_BYTES] for at in range(0, len(spent), _HASH_BYTES))
        self._spent: dict[bytes, None] = dict.fromkeys(hashes)

    def newest(self) -> Iterator[tuple[str, Outcome]]:
        """All that are remembered, the oldest first."""
        return iter(self._newest.items())

    def spent(self) -> bytes:
        """The hashes of keys whose outcome is forgotten, the oldest first."""
        return b"".join(self._spent)

    def recall(self, key: str) -> Outcome | None:
        """The outcome of a command that was carried out under ``key``; None: none was.

        :raises SessionExpired: one was, but what it came to is forgotten.
        """
        found = self._newest.get(key)
        if found is None and key and self._spent and _hash(key) in self._spent:
            raise SessionExpired(
                "this idempotency key was used before, and what came of it is not known any more: "
                "look what is there, then ask under a new key"
            )
        return found

    def remember(self, key: str, outcome: Outcome) -> None:
        """A command was carried out under ``key``; without a key nothing is remembered."""
        if not key:
            return
        self._newest[key] = outcome
        if len(self._newest) > MAX_OUTCOMES:
            oldest = next(iter(self._newest))
            del self._newest[oldest]
            self._spent[_hash(oldest)] = None
            if len(self._spent) > MAX_SPENT:
                del self._spent[next(iter(self._spent))]


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=_HASH_BYTES).digest()
