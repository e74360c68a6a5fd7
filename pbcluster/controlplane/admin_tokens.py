"""Platform tokens in the admin API: issue one, look at the keys, rotate them.

A token is shown once, in the answer to its issue; no answer has anything of a key but its id and
its times.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from twisted.web.server import Request

from pbcluster.controlplane import admin_json
from pbcluster.controlplane.admin_guard import (
    AdminRoutes,
    app,
    body_of,
    guarded,
    idempotency_key,
)
from pbcluster.controlplane.token_issuing import TokenIssuer
from pbcluster.controlplane.token_keys import SigningKey
from pbcluster.errors import InvalidInput
from pbcluster.platform_tokens import MAX_LIFETIME_S, MIN_LIFETIME_S

DEFAULT_LIFETIME_S = 3600


class TokenRoutes(AdminRoutes):
    """The routes below ``tokens``."""

    @property
    def _tokens(self) -> TokenIssuer:
        return TokenIssuer(self._consensus, self._cluster_id, self._wall_clock)

    @app.route("/api/cp/tokens", methods=["POST"])
    @guarded
    async def issue_token(self, request: Request) -> tuple[int, Any]:
        """A new token that names a tenant."""
        wanted, lifetime_s = wanted_token(body_of(request))
        # Not from an older state: the tenant may have been created, or deleted, a moment ago.
        await self._consensus.read_barrier()
        tenant = self._living(wanted)
        issued = await self._tokens.issue(tenant, lifetime_s)
        return 201, {
            "token": issued.token,
            "tenantID": tenant.id,
            "kid": issued.kid,
            "expires": issued.expires.isoformat(timespec="seconds"),
        }

    @app.route("/api/cp/tokens/keys", methods=["GET"])
    @guarded
    async def list_token_keys(self, request: Request) -> tuple[int, Any]:
        """The keys that verify tokens, the one that signs first."""
        page, per_page = admin_json.page_of(request.args)
        await self._consensus.read_barrier()
        keys = [key_json(key) for key in self._consensus.registry.token_keys]
        return 200, admin_json.listing(keys[::-1], page, per_page)

    @app.route("/api/cp/tokens/keys", methods=["POST"])
    @guarded
    async def rotate_token_keys(self, request: Request) -> tuple[int, Any]:
        """A new key signs; with ``now`` what was signed before counts no more."""
        at_once = wanted_rotation(body_of(request))
        key = idempotency_key(request)
        await self._consensus.read_barrier()
        rotated = await self._tokens.rotate(
            at_once=at_once, idempotency_key=key and f"admin/rotate/{key}"
        )
        return 201, key_json(rotated)


def wanted_token(body: bytes) -> tuple[str, int]:
    """Tenant and lifetime, in seconds, of a body. :raises InvalidInput: names the field."""
    value = admin_json.checked(admin_json.parse(body), "body", {"tenant": str, "expiresIn": int})
    if not value.get("tenant"):
        told = "a tenant's name or id"
        raise InvalidInput(f"tenant is missing: {told}", field="tenant", allowed=told)
    lifetime_s = value.get("expiresIn", DEFAULT_LIFETIME_S)
    if not MIN_LIFETIME_S <= lifetime_s <= MAX_LIFETIME_S:
        rule = f"{MIN_LIFETIME_S} to {MAX_LIFETIME_S} seconds"
        raise InvalidInput(
            f"expiresIn {lifetime_s} is not allowed: {rule}", field="expiresIn", allowed=rule
        )
    return value["tenant"], lifetime_s


def wanted_rotation(body: bytes) -> bool:
    """Whether all tokens end now; an empty body: no. :raises InvalidInput: names the field."""
    value = admin_json.checked(admin_json.parse(body or b"{}"), "body", {"now": bool})
    return bool(value.get("now", False))


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
