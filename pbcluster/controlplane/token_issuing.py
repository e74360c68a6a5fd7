"""Issues platform tokens and makes their keys, at the leader.

Before a token is signed, the log knows until when its key's tokens are valid, so that the key
verifies that long whatever happens to this member; and the proposal proves that the key still
signs. The first token makes the first key. A token is kept nowhere: the log line has its ``jti``.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import attrs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.logger import Logger

from pbcluster import platform_tokens
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.consensus import Consensus
from pbcluster.controlplane.token_keys import SigningKey
from pbcluster.errors import Busy, Conflict
from pbcluster.records import TenantRecord

#: A key's end is noted ahead, so that thousands of tokens are one proposal.
NOTED_AHEAD = timedelta(hours=1)
#: The key may be rotated between two steps; more often would mean a loop.
MAX_TRIES = 4

log = Logger()


@attrs.frozen
class Issued:
    """A new token and what is in it."""

    token: str = attrs.field(repr=False)
    kid: str
    expires: datetime


class TokenIssuer:
    """See the module."""

    def __init__(
        self, consensus: Consensus, cluster_id: str, wall_clock: Callable[[], datetime]
    ) -> None:
        self._consensus = consensus
        self._cluster_id = cluster_id
        self._wall_clock = wall_clock

    async def issue(self, tenant: TenantRecord, lifetime_s: int) -> Issued:
        """A token that names ``tenant``.

        :param lifetime_s: within the bounds of ``platform_tokens``.
        :raises NotLeader: only the leader has the key that counts.
        :raises Busy: the key is rotated again and again.
        """
        for _ in range(MAX_TRIES):
            now = self._wall_clock()
            expires = now + timedelta(seconds=lifetime_s)
            try:
                key = self._consensus.registry.token_keys.current or await self._first()
                await self._note(key, expires)
            except Conflict:
                continue
            return self._signed(key, tenant, now, expires)
        raise Busy("the signing key is being rotated")

    async def rotate(self, *, at_once: bool, idempotency_key: str = "") -> SigningKey:
        """A new key signs from now on.

        :param at_once: former keys verify nothing any more; else what they signed, until it ends.
        :raises Conflict: somebody else rotates too, or too many keys still verify.
        """
        current = self._consensus.registry.token_keys.current
        await self._propose(current.kid if current is not None else "", at_once, idempotency_key)
        rotated = self._consensus.registry.token_keys.current
        assert rotated is not None
        return rotated

    async def _first(self) -> SigningKey:
        await self._propose("", False, "")
        first = self._consensus.registry.token_keys.current
        assert first is not None
        return first

    async def _propose(self, expected_kid: str, at_once: bool, key: str) -> None:
        private = Ed25519PrivateKey.generate()
        command = c.RotateTokenKey(
            self._wall_clock(),
            f"{platform_tokens.KID_PREFIX}{secrets.token_hex(8)}",
            private.public_key().public_bytes_raw(),
            private.private_bytes_raw(),
            expected_kid,
            at_once,
        )
        await self._consensus.propose(command, key)
        log.info("platform tokens are signed by key {kid} now", kid=command.kid)

    async def _note(self, key: SigningKey, expires: datetime) -> None:
        if key.tokens_until is not None and expires <= key.tokens_until:
            # Also proves that this member still leads, so that the key still signs.
            await self._consensus.read_barrier()
            current = self._consensus.registry.token_keys.current
            if current is None or current.kid != key.kid:
                raise Conflict("the signing key was rotated meanwhile")
            return
        until = expires + NOTED_AHEAD
        await self._consensus.propose(c.NoteToken(self._wall_clock(), key.kid, until))

    def _signed(
        self, key: SigningKey, tenant: TenantRecord, now: datetime, expires: datetime
    ) -> Issued:
        jti = secrets.token_hex(8)
        at, until = int(now.timestamp()), int(expires.timestamp())
        claims = platform_tokens.Claims(tenant.id, until)
        token = platform_tokens.sign(
            key.private, key.kid, cluster_id=self._cluster_id, claims=claims, now=at, jti=jti
        )
        log.info(
            "token {jti} of {tenant} issued, key {kid}, valid until {until}",
            jti=jti,
            tenant=tenant.id,
            kid=key.kid,
            until=expires.isoformat(timespec="seconds"),
        )
        return Issued(token, key.kid, datetime.fromtimestamp(until, UTC))
