"""Join tokens, the process that comes with one, and the removal of nodes and gateways.

A token is made by its maker (``pbcluster join-tokens create``), not here: this API learns its
SHA-256 and a parcel that is sealed under it, so that neither the registry nor a log nor an answer
gives away what lets somebody in, or the secrets that go to who is let in.

``join`` needs no API token: its body has the join token. It is answered in three steps that each
may be repeated by the same process (told by its key), whose answer was lost: the token is spent and
the process known (one command), a member becomes a learner, the certificate is signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from twisted.logger import Logger
from twisted.web.server import Request

from pbcluster import authority
from pbcluster.controlplane import admin_bodies, admin_caller
from pbcluster.controlplane import admin_query as q
from pbcluster.controlplane import join_bodies as bodies
from pbcluster.controlplane import join_commands as c
from pbcluster.controlplane.admin_auth import Principal
from pbcluster.controlplane.admin_caller import Caller, caller_of
from pbcluster.controlplane.admin_guard import AdminRoutes, endpoint
from pbcluster.controlplane.admin_members import member_record
from pbcluster.controlplane.admin_table import Param, Query
from pbcluster.controlplane.join_tokens import MAX_PARCEL_BYTES, JoinToken
from pbcluster.errors import (
    ConfigError,
    Conflict,
    NotFound,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from pbcluster.records import MemberRecord, ProcessRecord, ProcessRole, Role
from pbcluster.transport.curve import is_key
from pbcluster.transport.membership import read_record

TOKEN_FIELDS = q.of_dicts(bodies.JoinTokenView)
GATEWAY_FIELDS = q.of_dicts(bodies.GatewayView)
FORCE = Param("force", "boolean", "Also while it has tenants.", default=False)

log = Logger()


class JoinRoutes(AdminRoutes):
    """The routes below ``join-tokens``, ``join``, ``authority`` and ``gateways``."""

    # -- tokens -----------------------------------------------------------------------------------

    @endpoint(
        "GET",
        "/api/cp/join-tokens",
        role=Role.ADMIN,
        query=TOKEN_FIELDS.params(),
        answers={200: list[bodies.JoinTokenView]},
    )
    async def list_join_tokens(self, request: Request, query: Query) -> tuple[int, Any]:
        """A page of the join tokens; none of them is shown itself."""
        await self._consensus.read_barrier()
        now = self._wall_clock()
        items = [token_json(token, now) for token in self._consensus.registry.join_tokens]
        return 200, q.listed(items, query, TOKEN_FIELDS)

    @endpoint(
        "POST",
        "/api/cp/join-tokens",
        role=Role.ADMIN,
        body=bodies.NewJoinToken,
        answers={201: bodies.JoinTokenView},
    )
    async def create_join_token(
        self, request: Request, body: bodies.NewJoinToken
    ) -> tuple[int, Any]:
        """Let one process of a role join once, under an id that was never used.

        409: somebody has or had the id, or there is a token for it.
        """
        at = self._wall_clock()
        command = c.CreateJoinToken(
            at,
            body.token_id,
            body.role.value,
            body.id,
            bytes.fromhex(body.sha256),
            _parcel(body.parcel),
            caller_of(request).actor,
            at + timedelta(seconds=body.expires_in),
        )
        detail = f"{body.role.value} {body.id}, for {body.expires_in} s"
        await self.propose(request, command, "join-token.create", body.token_id, detail)
        made = self._consensus.registry.join_tokens.find(body.token_id)
        assert made is not None
        return 201, token_json(made, at)

    @endpoint(
        "DELETE",
        "/api/cp/join-tokens/<string:key>",
        role=Role.ADMIN,
        answers={200: bodies.JoinTokenView},
    )
    async def revoke_join_token(self, request: Request, key: str) -> tuple[int, Any]:
        """Revoke a join token; who joined by it stays."""
        found = self._consensus.registry.join_tokens.find(key)
        command = c.RevokeJoinToken(self._wall_clock(), key)
        await self.propose(request, command, "join-token.revoke", key)
        assert found is not None
        return 200, token_json(found, self._wall_clock())

    # -- joining ----------------------------------------------------------------------------------

    @endpoint("GET", "/api/cp/authority", role=None, answers={200: bodies.AuthorityView}, here=True)
    async def show_authority(self, request: Request) -> tuple[int, Any]:
        """The certificate of the cluster's own authority, which a join token pins.

        404: this cluster has none, since it was made for one machine.
        """
        return 200, {"certificate": self._own_authority().certificate.decode()}

    @endpoint(
        "POST",
        "/api/cp/join",
        role=None,
        body=bodies.JoinRequest,
        answers={200: bodies.JoinedView},
    )
    async def join(self, request: Request, body: bodies.JoinRequest) -> tuple[int, Any]:
        """Let a process in by a join token, which is spent then.

        The same process may ask again, with the same key. 401: the token is wrong, revoked or has
        ended. 403: it is for another role or id. 409: another process joined by it.
        """
        own = self._own_authority()
        await self._consensus.read_barrier()
        try:
            token = self._checked(body)
        except Unauthorized:
            self._auth.failed(caller_of(request).address, self._clock.seconds())
            raise
        caller = caller_of(request)
        spoken = Caller(caller.address, caller.request_id, Principal(token.id, Role.VIEWER))
        admin_caller.remember(request, spoken)
        record = _member_of(body)
        now = self._wall_clock()
        # Before the token is spent: a request that cannot be certified must not spend it.
        certificate = authority.certify(
            own,
            body.role.value,
            body.id,
            body.certificate_request.encode(),
            now,
            addresses=() if record is None else (_ip_of(record.admin),),
        )
        if not token.used_key:
            if record is not None:
                self._check_add(body.id)
            process = ProcessRecord(body.id, body.role.value, body.curve_public, now, token.id)
            command = c.Join(now, token.id, token.digest, process, record)
            detail = f"{body.role.value} by {token.id}"
            await self.propose(request, command, "process.join", body.id, detail)
            log.warn("{process} joined as a {role}", process=body.id, role=body.role.value)
        if record is not None:
            await self._add(body.id)
        return 200, self._joined(body, token, certificate, own.certificate)

    def _own_authority(self) -> authority.Pair:
        if self._authority is None:
            raise NotFound(
                "this cluster has no authority to certify others by: it was made for one machine; "
                "`pbcluster up --address IP` opens it"
            )
        return self._authority

    def _checked(self, body: bodies.JoinRequest) -> JoinToken:
        """The token of a request that may use it. :raises CallerError: it may not."""
        if not is_key(body.curve_public):
            rule = admin_bodies.RULES["curvePublic"]
            raise Unprocessable(f"curvePublic must be {rule}", field="curvePublic", allowed=rule)
        tokens = self._consensus.registry.join_tokens
        token = tokens.get(body.token.partition(".")[0])
        digest = hashlib.sha256(body.token.encode()).digest()
        now = self._wall_clock()
        token.check(digest, body.role.value, body.id, body.curve_public, now)
        return token

    def _check_add(self, member_id: str) -> None:
        """:raises Unavailable: no member can join now; the token is not spent."""
        try:
            self._group.check_add(member_id)
        except Conflict as error:
            raise Unavailable(f"{error.message}: ask again", retry_after_s=1.0) from None

    async def _add(self, member_id: str) -> None:
        """It becomes a learner, as the registry knows it, unless it is one.

        :raises Unavailable: not now; the same process may ask again.
        """
        record = self._consensus.registry.roster.member(member_id)
        if record is None:
            raise Conflict(f"{member_id} was removed: an id never comes back")
        try:
            await self._group.add_member(record)
        except Conflict as error:
            raise Unavailable(f"{error.message}: ask again", retry_after_s=1.0) from None

    def _joined(
        self, body: bodies.JoinRequest, token: JoinToken, certificate: bytes, issuer: bytes
    ) -> dict[str, Any]:
        members = self._consensus.registry.roster.members()
        return {
            "id": body.id,
            "role": body.role.value,
            "clusterID": self._cluster_id,
            "members": [_member_json(member) for member in members],
            "certificate": certificate.decode(),
            "authority": issuer.decode(),
            "parcel": base64.b64encode(token.parcel).decode(),
        }

    # -- leaving ----------------------------------------------------------------------------------

    @endpoint(
        "DELETE",
        "/api/cp/nodes/<string:key>",
        role=Role.ADMIN,
        query=(FORCE,),
        answers={200: bodies.ProcessLeft},
    )
    async def remove_node(self, request: Request, key: str, query: Query) -> tuple[int, Any]:
        """Remove a node for good: its messages are refused, its id and key never come back.

        409: it has tenants. With ``force`` they are placed elsewhere, as if it had died.
        """
        force = bool(query["force"])
        return await self._remove(request, key, ProcessRole.NODE, force=force)

    @endpoint(
        "GET",
        "/api/cp/gateways",
        role=Role.VIEWER,
        query=GATEWAY_FIELDS.params(),
        answers={200: list[bodies.GatewayView]},
    )
    async def list_gateways(self, request: Request, query: Query) -> tuple[int, Any]:
        """A page of all gateways that are let in."""
        await self._consensus.read_barrier()
        processes = self._consensus.registry.roster.processes()
        items = [
            {"id": each.id, "joined": _text(each.joined), "joinToken": each.token_id}
            for each in processes
            if each.role == ProcessRole.GATEWAY.value
        ]
        return 200, q.listed(items, query, GATEWAY_FIELDS)

    @endpoint(
        "DELETE",
        "/api/cp/gateways/<string:key>",
        role=Role.ADMIN,
        answers={200: bodies.ProcessLeft},
    )
    async def remove_gateway(self, request: Request, key: str) -> tuple[int, Any]:
        """Remove a gateway for good: members and nodes refuse it, its id never comes back."""
        return await self._remove(request, key, ProcessRole.GATEWAY, force=False)

    async def _remove(
        self, request: Request, key: str, role: ProcessRole, *, force: bool
    ) -> tuple[int, Any]:
        command = c.RemoveProcess(self._wall_clock(), key, role.value, force)
        detail = "by force" if force else ""
        await self.propose(request, command, f"{role.value}.remove", key, detail)
        return 200, {"id": key, "removed": True, "left": self._consensus.registry.count_of(key)}


def token_json(token: JoinToken, now: datetime) -> dict[str, Any]:
    """What operators see of a token."""
    return {
        "id": token.id,
        "role": token.role,
        "processID": token.process_id,
        "status": token.status(now),
        "created": _text(token.created),
        "createdBy": token.created_by,
        "expires": _text(token.expires),
        "used": _text(token.used),
    }


def _member_json(member: MemberRecord) -> dict[str, str]:
    names = ("id", "raft", "requests", "broadcasts", "admin")
    told = {name: str(getattr(member, name)) for name in names}
    return told | {"curvePublic": member.curve_public}


def _member_of(body: bodies.JoinRequest) -> MemberRecord | None:
    """The record of a member that joins; None: it is a node or gateway.

    :raises Unprocessable: an address cannot be one, or others cannot connect to it.
    """
    if body.role is not ProcessRole.MEMBER:
        return None
    given = admin_bodies.NewMember(
        id=body.id,
        raft=body.raft,
        requests=body.requests,
        broadcasts=body.broadcasts,
        admin=body.admin,
        curve_public=body.curve_public,
    )
    record = member_record(given)
    try:
        read_record(record)
    except ConfigError as error:
        raise Unprocessable(error.message, field="requests") from None
    return record


def _ip_of(url: str) -> str:
    """The address in a URL. :raises Unprocessable: it has a name, which nothing here certifies."""
    try:
        return str(ipaddress.ip_address(urlsplit(url).hostname or ""))
    except ValueError:
        rule = "https://IP:PORT, its admin API"
        raise Unprocessable(f"admin must be {rule}", field="admin", allowed=rule) from None


def _parcel(text: str) -> bytes:
    try:
        found = base64.b64decode(text, validate=True)
    except binascii.Error:
        found = b"-" * (MAX_PARCEL_BYTES + 1)
    if len(found) > MAX_PARCEL_BYTES:
        rule = admin_bodies.RULES["parcel"]
        raise Unprocessable(f"parcel must be {rule}", field="parcel", allowed=rule)
    return found


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="seconds")
