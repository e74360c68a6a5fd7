"""What repeated commands came to: part of the registry, changed in log order only. Pure.

What holds: a command with an idempotency key is carried out once. A repetition gets the outcome of
the first, as long as that is remembered. After that its key alone is known, by a hash of it, for
several times as long: such a repetition is refused, not guessed and not done again. Whose key is
not even known by then is taken for new; no client of ours repeats for a hundredth of that time.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import attrs
import msgspec

from pbcluster import wire
from pbcluster.errors import SessionExpired

#: Outcomes that are remembered. At 4,000 changes a second, nearly what a group takes, this is 15 s;
#: a client repeats for at most 10 s.
MAX_OUTCOMES = 60_000
#: Further keys of which it is known that they were used.
MAX_SPENT = 240_000
#: Outcomes of a block.
BLOCK = 2_000
#: Bytes of a key's hash: two of so many keys meet with a chance of 1 in 10^8.
_HASH_BYTES = 8


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a command did: the ids and numbers it made, or its error."""

    index: int
    tenant_id: str = ""
    epoch: int = 0
    incarnation: int = 0
    error: wire.ErrorReply | None = None


_Item = tuple[str, Outcome]


@attrs.frozen
class _Block:
    """Some outcomes that follow one another, and the same as it stands in a snapshot."""

    items: list[_Item]
    encoded: bytes


class OutcomesImage:
    """What is remembered at one index, detached from it, at the cost of some references.

    :ivar spent: see :meth:`Outcomes.spent`.
    """

    def __init__(self, blocks: list[_Block], forgotten: int, rest: list[_Item], spent: bytes):
        """:param forgotten: of the first block. :param rest: what comes after the blocks."""
        self._blocks = blocks
        self._forgotten = forgotten
        self._rest = rest
        self.spent = spent

    def __len__(self) -> int:
        return sum(len(block.items) for block in self._blocks) - self._forgotten + len(self._rest)

    def encoded(self) -> Iterator[bytes]:
        """Key and outcome of each, the oldest first, in MessagePack, some at a time."""
        whole = iter(self._blocks)
        if self._forgotten:
            yield encode_each(next(whole).items[self._forgotten :])
        for block in whole:
            yield block.encoded
        yield encode_each(self._rest)


class Outcomes:
    """Key → outcome of the newest commands, and hashes of the keys before them.

    A busy group makes a snapshot of sixty thousand every two seconds: they are kept in blocks, each
    of which is encoded once, when it is whole.
    """

    def __init__(self, newest: Iterable[_Item] = (), spent: bytes = b"") -> None:
        """
        :param newest: as :meth:`newest` gave it. :param spent: as :meth:`spent` gave it.
        """
        self._newest: dict[str, Outcome] = {}
        #: The same in order: whole blocks, of the first of which some are forgotten, and the rest.
        self._blocks: deque[_Block] = deque()
        self._forgotten = 0
        self._rest: list[_Item] = []
        #: Hashes, in order, and to find one.
        self._spent = bytearray(spent)
        self._is_spent = {spent[at : at + _HASH_BYTES] for at in range(0, len(spent), _HASH_BYTES)}
        for key, outcome in newest:
            self._add(key, outcome)

    def newest(self) -> Iterator[_Item]:
        """All that are remembered, the oldest first."""
        whole = chain.from_iterable(block.items for block in self._blocks)
        return chain(islice(whole, self._forgotten, None), self._rest)

    def spent(self) -> bytes:
        """The hashes of keys whose outcome is forgotten, the oldest first."""
        return bytes(self._spent)

    def image(self) -> OutcomesImage:
        """All of it, as it is now."""
        return OutcomesImage(list(self._blocks), self._forgotten, list(self._rest), self.spent())

    def recall(self, key: str) -> Outcome | None:
        """The outcome of a command that was carried out under ``key``; None: none was.

        :raises SessionExpired: one was, but what it came to is forgotten.
        """
        found = self._newest.get(key)
        if found is None and key and self._is_spent and _hash(key) in self._is_spent:
            raise SessionExpired(
                "this idempotency key was used before, and what came of it is not known any more: "
                "look what is there, then ask under a new key"
            )
        return found

    def remember(self, key: str, outcome: Outcome) -> None:
        """A command was carried out under ``key``, which :meth:`recall` did not know; without a key
        nothing is remembered."""
        if not key:
            return
        self._add(key, outcome)
        if len(self._newest) > MAX_OUTCOMES:
            spent = _hash(self._forget_oldest())
            if spent not in self._is_spent:
                self._is_spent.add(spent)
                self._spent += spent
            if len(self._is_spent) > MAX_SPENT:
                self._is_spent.remove(bytes(self._spent[:_HASH_BYTES]))
                del self._spent[:_HASH_BYTES]

    def _add(self, key: str, outcome: Outcome) -> None:
        self._newest[key] = outcome
        self._rest.append((key, outcome))
        if len(self._rest) >= BLOCK:
            self._seal()

    def _seal(self) -> None:
        self._blocks.append(_Block(self._rest, encode_each(self._rest)))
        self._rest = []

    def _forget_oldest(self) -> str:
        """:returns: its key."""
        if not self._blocks:
            self._seal()
        items = self._blocks[0].items
        key = items[self._forgotten][0]
        del self._newest[key]
        self._forgotten += 1
        if self._forgotten == len(items):
            self._blocks.popleft()
            self._forgotten = 0
        return key


def encode_each(records: Sequence[Any]) -> bytes:
    """They one after the other in MessagePack: a list without its head."""
    count = len(records)
    head = 1 if count < 2**4 else 3 if count < 2**16 else 5
    return msgspec.msgpack.encode(records)[head:]


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=_HASH_BYTES).digest()
