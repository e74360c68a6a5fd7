"""The keys that sign platform tokens: part of the registry, changed in log order only. Pure.

What holds:

* One key signs. A former one keeps its public half alone, and verifies until the last token that it
  signed has ended; one that signed none is forgotten at once.
* The private half leaves the control plane never: :meth:`TokenKeys.verifying` is all that others
  get, and no ``repr`` shows it. It is in the log, in the members' stores (mode 0600) and in what
  members send each other, and not in the file of ``members snapshot``.
* At most :data:`MAX_KEYS` are there: a rotation that needs more room is refused.

The leader makes keys (randomness) and sets the time; applying repeats what the command says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from pbcluster import wire
from pbcluster.controlplane import commands as c
from pbcluster.errors import Conflict

#: One rotation a week with tokens of 90 days needs 14; all of them fit a frame many times.
MAX_KEYS = 32


class SigningKey(msgspec.Struct, frozen=True, array_like=True):
    """One key. ``private`` is empty once it is ``retired``; ``tokens_until`` is the time by which
    all tokens end that it signed, None: it signed none."""

    kid: str
    public: bytes
    private: bytes
    created: datetime
    retired: datetime | None = None
    tokens_until: datetime | None = None

    def __repr__(self) -> str:
        return f"SigningKey({self.kid!r})"


class TokenKeys:
    """All keys, the oldest first; the last one signs."""

    def __init__(self, keys: Iterable[SigningKey] = ()) -> None:
        self._keys = list(keys)

    def __iter__(self) -> Iterator[SigningKey]:
        return iter(tuple(self._keys))

    @property
    def current(self) -> SigningKey | None:
        """The key that signs; None: none was made yet."""
        return self._keys[-1] if self._keys else None

    def verifying(self) -> tuple[wire.TokenKey, ...]:
        """What gateways need to know."""
        return tuple(
            wire.TokenKey(
                key.kid,
                key.public,
                0 if key.retired is None or key.tokens_until is None else _seconds(key),
            )
            for key in self._keys
        )

    def rotate(self, command: c.RotateTokenKey) -> None:
        """A new key signs.

        :raises Conflict: another one signs than was expected, or too many keys still verify.
        """
        self._expect(command.expected_kid)
        former = [] if command.at_once else [_retired(key, command.at) for key in self._keys]
        kept = [key for key in former if key.tokens_until and key.tokens_until > command.at]
        if len(kept) >= MAX_KEYS:
            raise Conflict(
                f"{len(kept)} former keys still verify tokens, more are not kept: wait until some "
                "end, or rotate with --now, which ends all tokens"
            )
        new = SigningKey(command.kid, command.public, command.private, command.at)
        self._keys = [*kept, new]

    def note(self, command: c.NoteToken) -> None:
        """The current key signs tokens until then. :raises Conflict: another key signs now."""
        key = self._expect(command.kid)
        assert key is not None
        if key.tokens_until is None or key.tokens_until < command.until:
            self._keys[-1] = msgspec.structs.replace(key, tokens_until=command.until)

    def _expect(self, kid: str) -> SigningKey | None:
        key = self.current
        if (key.kid if key is not None else "") != kid:
            raise Conflict("the signing key was rotated meanwhile: ask again", kid=kid)
        return key


def _retired(key: SigningKey, at: datetime) -> SigningKey:
    return msgspec.structs.replace(key, private=b"", retired=key.retired or at)


def _seconds(key: SigningKey) -> int:
    assert key.tokens_until is not None
    # Rounded up: a token may end within this second.
    return int(key.tokens_until.timestamp()) + 1
