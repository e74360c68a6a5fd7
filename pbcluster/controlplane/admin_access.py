"""API tokens and the audit trail in the admin API.

A token is shown once, in the answer to its making; the registry has its SHA-256.
"""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import UNSET
from twisted.web.server import Request

from pbcluster.controlplane import admin_bodies as bodies
from pbcluster.controlplane import admin_query as q
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_caller import caller_of
from pbcluster.controlplane.admin_guard import AdminRoutes, endpoint
from pbcluster.controlplane.admin_table import Query
from pbcluster.controlplane.admin_views import ApiTokenView, NewApiTokenView
from pbcluster.controlplane.api_tokens import ApiToken
from pbcluster.controlplane.audit import AuditEntry
from pbcluster.records import Role

DEFAULT_LIFETIME_S = 90 * bodies.DAY_S
TOKEN_FIELDS = q.of_dicts(ApiTokenView)
AUDIT_FIELDS = q.of_records(AuditEntry, AuditEntry)


class AccessRoutes(AdminRoutes):
    """The routes below ``api-tokens`` and ``audit``."""

    @endpoint(
        "GET",
        "/api/cp/api-tokens",
        role=Role.ADMIN,
        query=TOKEN_FIELDS.params(),
        answers={200: list[ApiTokenView]},
    )
    async def list_api_tokens(self, request: Request, query: Query) -> tuple[int, Any]:
        """A page of the tokens of this API, ended ones too until they are replaced."""
        await self._consensus.read_barrier()
        now = self._wall_clock()
        items = [token_json(token, now) for token in self._consensus.registry.api_tokens]
        return 200, q.listed(items, query, TOKEN_FIELDS)

    @endpoint(
        "POST",
        "/api/cp/api-tokens",
        role=Role.ADMIN,
        body=bodies.NewApiToken,
        answers={201: NewApiTokenView},
    )
    async def create_api_token(self, request: Request, body: bodies.NewApiToken) -> tuple[int, Any]:
        """Make a token of this API; it is shown only now."""
        token_id = f"apitoken_{secrets.token_hex(8)}"
        token = f"{token_id}.{secrets.token_urlsafe(32)}"
        at = self._wall_clock()
        lifetime_s = DEFAULT_LIFETIME_S if body.expires_in is UNSET else body.expires_in
        assert isinstance(lifetime_s, int)
        command = c.CreateApiToken(
            at,
            token_id,
            body.name,
            body.role,
            hashlib.sha256(token.encode()).digest(),
            caller_of(request).actor,
            at + timedelta(seconds=lifetime_s),
        )
        detail = f"name {body.name}, role {body.role.value}, for {lifetime_s} s"
        await self.propose(request, command, "api-token.create", token_id, detail)
        made = self._consensus.registry.api_tokens.get(token_id)
        assert made is not None
        return 201, token_json(made, at) | {"token": token}

    @endpoint(
        "DELETE",
        "/api/cp/api-tokens/<string:key>",
        role=Role.ADMIN,
        answers={200: ApiTokenView},
    )
    async def revoke_api_token(self, request: Request, key: str) -> tuple[int, Any]:
        """Revoke a token of this API, at once."""
        found = self._consensus.registry.api_tokens.get(key)
        command = c.RevokeApiToken(self._wall_clock(), key)
        await self.propose(request, command, "api-token.revoke", key)
        assert found is not None
        return 200, token_json(found, self._wall_clock())

    @endpoint(
        "GET",
        "/api/cp/audit",
        role=Role.ADMIN,
        query=AUDIT_FIELDS.params(),
        answers={200: list[AuditEntry]},
    )
    async def list_audit(self, request: Request, query: Query) -> tuple[int, Any]:
        """A page of the audit trail; without ``sort`` the newest first."""
        await self._consensus.read_barrier()
        entries = self._consensus.registry.audit.newest_first()
        return 200, q.listed(entries, query, AUDIT_FIELDS, msgspec.to_builtins)


def token_json(token: ApiToken, now: datetime) -> dict[str, Any]:
    """What operators see of a token."""
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role.value,
        "created": token.created.isoformat(timespec="seconds"),
        "createdBy": token.created_by,
        "expires": token.expires and token.expires.isoformat(timespec="seconds"),
        "expired": token.ended(now),
    }
