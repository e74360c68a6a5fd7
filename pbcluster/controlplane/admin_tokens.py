"""Platform tokens in the admin API: issue one, look at the keys, rotate them.

A token is shown once, in the answer to its issue; no answer has anything of a key but its id and
its times.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from twisted.web.server import Request

from pbcluster.controlplane import admin_bodies as bodies
from pbcluster.controlplane import admin_query as q
from pbcluster.controlplane.admin_guard import AdminRoutes, endpoint, idempotency_key
from pbcluster.controlplane.admin_table import Query
from pbcluster.controlplane.admin_views import IssuedView, KeyView
from pbcluster.controlplane.token_issuing import TokenIssuer
from pbcluster.controlplane.token_keys import SigningKey
from pbcluster.records import Role

KEY_FIELDS = q.of_dicts(KeyView)


class TokenRoutes(AdminRoutes):
    """The routes below ``tokens``."""

    @property
    def _tokens(self) -> TokenIssuer:
        return TokenIssuer(self._consensus, self._cluster_id, self._wall_clock)

    @endpoint(
        "POST",
        "/api/cp/tokens",
        role=Role.OPERATOR,
        body=bodies.NewPlatformToken,
        answers={201: IssuedView},
    )
    async def issue_token(self, request: Request, body: bodies.NewPlatformToken) -> tuple[int, Any]:
        """Issue a platform token, which names a tenant; it is shown only now."""
        # Not from an older state: the tenant may have been created, or deleted, a moment ago.
        await self._consensus.read_barrier()
        tenant = self._living(body.tenant)
        detail = f"for {body.expires_in} s"
        await self.noted(request, "platform-token.issue", tenant.id, detail)
        issued = await self._tokens.issue(tenant, body.expires_in)
        return 201, {
            "token": issued.token,
            "tenantID": tenant.id,
            "kid": issued.kid,
            "expires": issued.expires.isoformat(timespec="seconds"),
        }

    @endpoint(
        "GET",
        "/api/cp/tokens/keys",
        role=Role.VIEWER,
        query=KEY_FIELDS.params(),
        answers={200: list[KeyView]},
    )
    async def list_token_keys(self, request: Request, query: Query) -> tuple[int, Any]:
        """A page of the keys that verify tokens, the one that signs first."""
        await self._consensus.read_barrier()
        keys = [key_json(key) for key in self._consensus.registry.token_keys]
        return 200, q.listed(keys[::-1], query, KEY_FIELDS)

    @endpoint(
        "POST",
        "/api/cp/tokens/keys",
        role=Role.ADMIN,
        body=bodies.Rotation,
        body_required=False,
        answers={201: KeyView},
    )
    async def rotate_token_keys(self, request: Request, body: bodies.Rotation) -> tuple[int, Any]:
        """Sign with a new key; with ``now`` what was signed before counts no more."""
        key = idempotency_key(request)
        await self._consensus.read_barrier()
        detail = "at once" if body.now else ""
        await self.noted(request, "platform-token.rotate", "", detail)
        rotated = await self._tokens.rotate(
            at_once=body.now, idempotency_key=key and f"admin/rotate/{key}"
        )
        return 201, key_json(rotated)


def key_json(key: SigningKey) -> dict[str, Any]:
    """What operators see of a key."""
    return {
        "kid": key.kid,
        "status": "signs" if key.retired is None else "verifies",
        "created": _text(key.created),
        "retired": _text(key.retired),
        "tokensUntil": _text(key.tokens_until),
    }


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
