"""Platform tokens as a gateway sees them: known keys, verified tokens. Pure; time comes in.

What holds:

* keys are only replaced by what is not older (the log index of the answer); what is missing in a
  newer answer verifies nothing any more, nor does a token that it verified before;
* a key counts until the time the control plane gave for it, also while nobody can be asked;
* a token that was verified is remembered by its hash until it ends, so that its next request costs
  a microsecond; at most :data:`MAX_VERIFIED` are, the oldest go first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from pbcluster import platform_tokens
from pbcluster.errors import Unauthorized
from pbcluster.platform_tokens import LEEWAY_S, MAX_TOKEN_BYTES, Claims, TokenTooLong
from pbcluster.wire import TokenKeys

#: Verified tokens remembered: 3 MB.
MAX_VERIFIED = 16_384
#: A control plane keeps 32 at most.
MAX_KEYS = 64


class UnknownKey(Unauthorized):
    """A token is signed by a key that is not known here: the control plane may know it."""

    code = "unknown_token_key"

    def __init__(self, kid: str) -> None:
        super().__init__("the bearer token is signed by a key that is not known (any more)")
        self.kid = kid


class Tokens:
    """See the module.

    :ivar index: log index of the newest answer; -1: none yet. :ivar verified: signatures checked.
    """

    def __init__(self, cluster_id: str, unix_s: Callable[[], float]) -> None:
        """
        :param unix_s: wall clock.
        """
        self.index = -1
        self.verified = 0
        self._cluster_id = cluster_id
        self._unix_s = unix_s
        self._keys: dict[str, tuple[Ed25519PublicKey, int]] = {}
        self._told: TokenKeys | None = None
        self._remembered: dict[bytes, Claims] = {}

    def learn(self, answer: TokenKeys) -> bool:
        """The control plane's keys. :returns: False if a newer answer is known."""
        if answer.index < self.index:
            return False
        self.index = answer.index
        if self._told is None or answer.keys != self._told.keys:
            self._keys = {
                key.kid: (Ed25519PublicKey.from_public_bytes(key.public), key.until)
                for key in answer.keys[-MAX_KEYS:]
                if len(key.public) == 32
            }
            self._remembered.clear()
        self._told = answer
        return True

    def knows(self, kid: str) -> bool:
        """Whether there is such a key, be it over or not."""
        return kid in self._keys

    def tenant_of(self, token: bytes) -> str:
        """The id of the tenant that a valid token names.

        :raises UnknownKey: it cannot be verified by what is known here.
        :raises Unauthorized: it is not valid. :raises TokenTooLong: it is.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise TokenTooLong
        now_s = self._unix_s()
        name = hashlib.sha256(token).digest()
        claims = self._remembered.get(name)
        if claims is None:
            claims = self._verify(token, now_s)
            self._remembered[name] = claims
            if len(self._remembered) > MAX_VERIFIED:
                del self._remembered[next(iter(self._remembered))]
        elif claims.expires <= now_s - LEEWAY_S:
            del self._remembered[name]
            raise Unauthorized("the bearer token has expired")
        return claims.tenant_id

    def _verify(self, token: bytes, now_s: float) -> Claims:
        kid = platform_tokens.kid_of(token)
        known = self._keys.get(kid)
        if known is None:
            raise UnknownKey(kid)
        public, until = known
        if until and until <= now_s - LEEWAY_S:
            raise Unauthorized("the bearer token is signed by a key that was retired")
        self.verified += 1
        return platform_tokens.verify(public, token, cluster_id=self._cluster_id, now_s=now_s)
