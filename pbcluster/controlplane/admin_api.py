"""The admin API: what operators and the command line ask of a member, over HTTP.

Every route but ``/api/cp/health`` needs the admin token; every answer but a snapshot is JSON; every
error has PocketBase's form. A password is hashed in a thread at once and kept nowhere. The log has
method, path, status and duration, never a body, a header or a query.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from functools import wraps
from typing import Any

import bcrypt
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from pbcluster import saved_state
from pbcluster.controlplane import admin_json
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_auth import AdminAuth
from pbcluster.controlplane.admin_forward import Forwarder, PassedOn
from pbcluster.controlplane.admin_members import Group, members_json, new_member, wanted_member
from pbcluster.controlplane.consensus import Consensus
from pbcluster.controlplane.executor import Executor, utc_now
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.placement import choose
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.requests import Requests
from pbcluster.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    NotLeader,
    PBClusterError,
    TooLarge,
    Unavailable,
)
from pbcluster.records import InitialSuperuser, TenantRecord, TenantStatus
from pbcluster.saved_state import SavedState

MAX_BODY_BYTES = 1024 * 1024
#: PocketBase's own cost; about 50 ms in a thread.
BCRYPT_COST = 10
MAX_WAIT_S = 60.0
MAX_KEY_BYTES = 200
_LOOK_AGAIN_S = 0.02
#: Routes that any member answers by itself, not the leader for it.
_ANSWERED_HERE = ("health", "snapshot")
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"

log = Logger()

Route = Callable[..., Coroutine[Any, Any, tuple[int, Any]]]
InThread = Callable[..., Awaitable[Any]]


def new_tenant_id() -> str:
    """A random id: 20 characters of 36 never meet by chance."""
    return "tenant_" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(20))


def _answer(request: Request, status: int, value: Any) -> bytes:
    request.setResponseCode(status)
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"server", b"pbcluster")
    if isinstance(value, bytes):
        request.setHeader(b"content-type", b"application/octet-stream")
        return value
    request.setHeader(b"content-type", b"application/json")
    return json.dumps(value, default=str).encode() + b"\n"


def _body(request: Request) -> bytes:
    """The whole body. :raises TooLarge: over its bound."""
    content = request.content
    body: bytes = content.read(MAX_BODY_BYTES + 1) if content is not None else b""
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"a body may have {MAX_BODY_BYTES} bytes")
    return body


def _relay(request: Request, passed: PassedOn) -> bytes:
    """The leader's answer as ours."""
    request.setResponseCode(passed.status)
    for name, value in passed.headers.items():
        request.setHeader(name, value)
    request.setHeader(b"server", b"pbcluster")
    return passed.body


def _refuse(request: Request, error: PBClusterError) -> bytes:
    if isinstance(error, Unavailable):
        request.setHeader(b"retry-after", b"%d" % max(1, round(error.retry_after_s)))
    if error.status == 401:
        request.setHeader(b"www-authenticate", b"Bearer")
    return _answer(request, error.status, admin_json.error_body(error))


def _idempotency_key(request: Request) -> str:
    """The request's key, empty if it has none. :raises InvalidInput: it cannot be one."""
    key: bytes = request.getHeader(b"idempotency-key") or b""
    rule = f"at most {MAX_KEY_BYTES} printable ASCII characters"
    if len(key) > MAX_KEY_BYTES or not key.decode("latin-1").isprintable() or not key.isascii():
        raise InvalidInput(f"Idempotency-Key: {rule}", field="Idempotency-Key", allowed=rule)
    return key.decode("ascii")


class AdminAPI:
    """The routes. ``resource()`` goes into a ``twisted.web`` site."""

    app = Klein()

    def __init__(
        self,
        clock: IReactorTime,
        consensus: Consensus,
        liveness: Liveness,
        planner: Planner,
        executor: Executor,
        requests: Requests,
        auth: AdminAuth,
        in_thread: InThread,
        wall_clock: Callable[[], datetime] = utc_now,
        *,
        group: Group,
        cluster_id: str,
        forwarder: Forwarder | None = None,
        counts: Callable[[], Mapping[str, Mapping[str, int]]] = dict,
    ) -> None:
        """
        :param in_thread: calls a slow function in a thread, like ``deferToThreadPool``.
        :param group: the control plane's members.
        :param forwarder: passes on what only the leader can answer.
        :param counts: what this member's sockets dropped and refused, for its health.
        """
        self._counts = counts
        self._group = group
        self._cluster_id = cluster_id
        self._forwarder = forwarder
        self._clock = clock
        self._consensus = consensus
        self._liveness = liveness
        self._planner = planner
        self._executor = executor
        self._requests = requests
        self._auth = auth
        self._in_thread = in_thread
        self._wall_clock = wall_clock

    def resource(self) -> IResource:
        """The API as a resource tree."""
        resource: IResource = self.app.resource()
        return resource

    @staticmethod
    def _guarded(route: Route) -> Callable[..., Deferred[bytes]]:
        """Authorise, run, turn what comes out into JSON, log."""

        @wraps(route)
        def guarded(self: AdminAPI, request: Request, **parts: str) -> Deferred[bytes]:
            return Deferred.fromCoroutine(self._handle(route, request, parts))

        return guarded

    async def _handle(self, route: Route, request: Request, parts: dict[str, str]) -> bytes:
        began = self._clock.seconds()
        status = 500
        try:
            if route.__name__ != "health":
                self._authorise(request)
            here = route.__name__ in _ANSWERED_HERE
            passed = None if here else await self._pass_on(request)
            if passed is not None:
                status, body = passed.status, _relay(request, passed)
            else:
                status, value = await route(self, request, **parts)
                body = _answer(request, status, value)
        except PBClusterError as error:
            status = error.status
            body = _refuse(request, error)
        except Exception:
            log.failure("the admin API failed at {path}", path=request.path)
            body = _refuse(request, PBClusterError("internal error"))
        log.info(
            "admin {method} {path} {status} {ms} ms",
            method=request.method.decode("ascii", "replace"),
            path=request.path.decode("ascii", "backslashreplace")[:200],
            status=status,
            ms=round((self._clock.seconds() - began) * 1000),
        )
        return body

    async def _pass_on(self, request: Request) -> PassedOn | None:
        """The leader's answer; None: this member answers. :raises NotLeader: nobody can."""
        if self._forwarder is None or self._consensus.is_leader:
            return None
        leader = self._consensus.leader_endpoint
        if self._forwarder.is_marked(request):
            raise NotLeader("this member does not lead (any more)", leader=leader)
        return await self._forwarder.pass_on(request, leader, _body(request))

    def _authorise(self, request: Request) -> None:
        address = getattr(request.getClientAddress(), "host", "?")
        self._auth.check(request.getHeader(b"authorization"), address, self._clock.seconds())

    @app.handle_errors(HTTPException)
    def _no_route(self, request: Request, failure: Any) -> bytes:
        status = failure.value.code or 500
        told = {404: "no such page", 405: "this method is not allowed here"}
        error = NotFound(told.get(status, "bad request"))
        return _answer(request, status, admin_json.error_body(error) | {"status": status})

    # -- health -----------------------------------------------------------------------------------

    @app.route("/api/cp/health", methods=["GET"])
    @_guarded
    async def health(self, request: Request) -> tuple[int, Any]:
        """Cluster health: without the token only whether this member serves."""
        leads = self._consensus.is_leader
        serving = leads or bool(self._consensus.leader_endpoint)
        shown: dict[str, Any] = {
            "status": "ok" if serving else "unavailable",
            # True: this one; else the leader's id, False while there is none.
            "leader": leads or self._consensus.leader_endpoint or False,
        }
        if request.getHeader(b"authorization") is not None:
            self._authorise(request)
            registry = self._consensus.registry
            counts: dict[str, int] = {}
            for tenant in registry.tenants():
                counts[tenant.status.value] = counts.get(tenant.status.value, 0) + 1
            shown["index"] = registry.applied_index
            shown["tenants"] = counts
            shown["nodes"] = {
                node.id: {"status": node.status.value, "alive": self._liveness.alive(node.id)}
                for node in registry.nodes()
            }
            shown["counts"] = self._counts()
            status = self._group.status()
            shown["term"] = 0 if status is None else status.term
            shown["alarms"] = ["too many nodes do not answer"] if self._planner.storm() else []
        return (200 if serving else 503), shown

    # -- tenants ----------------------------------------------------------------------------------

    @app.route("/api/cp/tenants", methods=["GET"])
    @_guarded
    async def list_tenants(self, request: Request) -> tuple[int, Any]:
        """A page of all tenants, in the order of creation."""
        page, per_page = admin_json.page_of(request.args)
        await self._consensus.read_barrier()
        tenants = list(self._consensus.registry.tenants())
        shown = admin_json.listing(tenants, page, per_page)
        shown["items"] = [self._shown(tenant) for tenant in shown["items"]]
        return 200, shown

    @app.route("/api/cp/tenants", methods=["POST"])
    @_guarded
    async def create_tenant(self, request: Request) -> tuple[int, Any]:
        """Create a tenant; with ``?wait=SECONDS`` answer when it is ready."""
        wanted = admin_json.new_tenant(_body(request))
        wait_s = self._wait_of(request)
        key = _idempotency_key(request)
        self._check_room()
        superuser = None
        if wanted.email:
            salt = bcrypt.gensalt(BCRYPT_COST)
            hashed = await self._in_thread(bcrypt.hashpw, wanted.password.encode(), salt)
            superuser = InitialSuperuser(email=wanted.email, password_hash=hashed.decode())
        command = c.CreateTenant(
            at=self._wall_clock(),
            tenant_id=new_tenant_id(),
            name=wanted.name,
            domain=f"{wanted.name}.{self._consensus.registry.base_domain}",
            durability=wanted.durability,
            metadata=wanted.metadata,
            quotas=wanted.quotas,
            initial_superuser=superuser,
        )
        outcome = await self._consensus.propose(command, key and f"admin/{key}")
        tenant = self._consensus.registry.tenant(outcome.tenant_id)
        if tenant.name != wanted.name:
            raise Conflict("this Idempotency-Key was used to create another tenant", field="name")
        await self._place(tenant)
        tenant = await self._wait_ready(tenant.id, wait_s)
        return (201 if tenant.ever_ready else 202), self._shown(tenant)

    def _check_room(self) -> None:
        """Refuse before anything is created. :raises NoCapacity: no node has room."""
        choose(self._planner.candidates(None))

    async def _place(self, tenant: TenantRecord) -> None:
        if tenant.node_id:
            return
        try:
            effect = self._planner.place(tenant, self._clock.seconds())
            if effect is not None:
                await self._executor.assign(effect)
        except PBClusterError as error:
            # It exists now, so this is no failure of its creation: its first request places it.
            log.info("tenant {t} is placed later: {e}", t=tenant.id, e=error.message)

    async def _wait_ready(self, tenant_id: str, wait_s: float) -> TenantRecord:
        until = self._clock.seconds() + wait_s
        while True:
            tenant = self._consensus.registry.tenant(tenant_id)
            if tenant.ever_ready or self._clock.seconds() >= until:
                return tenant
            await deferLater(self._clock, _LOOK_AGAIN_S)

    @staticmethod
    def _wait_of(request: Request) -> float:
        text = request.args.get(b"wait", [b"0"])[0]
        rule = f"seconds from 0 to {MAX_WAIT_S:.0f}"
        try:
            wait_s = float(text)
        except ValueError:
            wait_s = -1.0
        if not 0 <= wait_s <= MAX_WAIT_S:
            raise InvalidInput(f"wait must be {rule}", field="wait", allowed=rule)
        return wait_s

    @app.route("/api/cp/tenants/<string:key>", methods=["GET"])
    @_guarded
    async def show_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """One tenant by id or name."""
        await self._consensus.read_barrier()
        return 200, self._shown(self._living(key))

    @app.route("/api/cp/tenants/<string:key>", methods=["PUT"])
    @_guarded
    async def update_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """Change metadata or quotas."""
        change = admin_json.tenant_change(_body(request))
        tenant = self._living(key)
        command = c.UpdateTenant(
            self._wall_clock(), tenant.id, change.version, change.metadata, change.quotas
        )
        key = _idempotency_key(request)
        await self._consensus.propose(command, key and f"admin/update/{key}")
        return 200, self._shown(self._consensus.registry.tenant(tenant.id))

    @app.route("/api/cp/tenants/<string:key>", methods=["DELETE"])
    @_guarded
    async def delete_tenant(self, request: Request, key: str) -> tuple[int, Any]:
        """Delete a tenant: it stops answering at once; with ``?wait=`` answer when it ended."""
        until = self._clock.seconds() + self._wait_of(request)
        own = _idempotency_key(request)
        own = own and f"admin/delete/{own}"
        # A repetition is about the tenant that was meant first: its name may be another's by now.
        done = self._consensus.registry.outcome(own)
        if done is not None and done.error is not None:
            raise done.error.exception()
        tenant = self._living(key) if done is None else self._living(done.tenant_id, gone=True)
        await self._consensus.propose(c.DeleteTenant(self._wall_clock(), tenant.id), own)
        while True:
            now = self._consensus.registry.tenant(tenant.id)
            if now.status is TenantStatus.DELETED or self._clock.seconds() >= until:
                return (200 if now.status is TenantStatus.DELETED else 202), self._shown(now)
            await deferLater(self._clock, _LOOK_AGAIN_S)

    def _living(self, key: str, *, gone: bool = False) -> TenantRecord:
        """:raises NotFound: there is none, or, unless ``gone`` is fine, it is deleted."""
        tenant = self._consensus.registry.tenant(key)
        if tenant.status is TenantStatus.DELETED and not gone:
            raise NotFound(f"tenant {key!r} is deleted")
        return tenant

    def _shown(self, tenant: TenantRecord) -> dict[str, Any]:
        return admin_json.tenant_json(
            self._consensus.registry,
            self._liveness,
            tenant,
            self._requests.failures.get(tenant.id, ""),
        )

    # -- members ----------------------------------------------------------------------------------

    @app.route("/api/cp/members", methods=["GET"])
    @_guarded
    async def list_members(self, request: Request) -> tuple[int, Any]:
        """All control-plane members."""
        page, per_page = admin_json.page_of(request.args)
        await self._consensus.read_barrier()
        shown = members_json(self._group.status(), self._group.records())
        return 200, admin_json.listing(shown, page, per_page)

    @app.route("/api/cp/members", methods=["POST"])
    @_guarded
    async def add_member(self, request: Request) -> tuple[int, Any]:
        """Let a new member join; it votes once it has caught up."""
        record = new_member(_body(request))
        await self._group.add_member(record)
        return 202, {"id": record.id, "voter": False}

    @app.route("/api/cp/members/snapshot", methods=["GET"])
    @_guarded
    async def snapshot(self, request: Request) -> tuple[int, Any]:
        """The whole registry, for ``pbcluster members recover``."""
        await self._consensus.read_barrier()
        registry = self._consensus.registry
        index, encode = registry.applied_index, registry.image().to_bytes
        image = await self._in_thread(encode)
        at = self._wall_clock().isoformat()
        return 200, saved_state.pack(SavedState(self._cluster_id, index, at, image))

    @app.route("/api/cp/members/transfer", methods=["POST"])
    @_guarded
    async def transfer_leadership(self, request: Request) -> tuple[int, Any]:
        """Hand leadership over to the member that the body names."""
        target = wanted_member(_body(request))
        self._group.transfer_leadership(target)
        return 202, {"to": target}

    @app.route("/api/cp/members/<string:key>", methods=["DELETE"])
    @_guarded
    async def remove_member(self, request: Request, key: str) -> tuple[int, Any]:
        """Take a member out of the group."""
        await self._group.remove_member(key)
        return 200, {"id": key, "removed": True}

    # -- nodes ------------------------------------------------------------------------------------

    @app.route("/api/cp/nodes", methods=["GET"])
    @_guarded
    async def list_nodes(self, request: Request) -> tuple[int, Any]:
        """A page of all nodes."""
        page, per_page = admin_json.page_of(request.args)
        await self._consensus.read_barrier()
        nodes = [self._node_shown(node.id) for node in self._consensus.registry.nodes()]
        return 200, admin_json.listing(nodes, page, per_page)

    @app.route("/api/cp/nodes/<string:key>", methods=["GET"])
    @_guarded
    async def show_node(self, request: Request, key: str) -> tuple[int, Any]:
        """One node with its tenants."""
        await self._consensus.read_barrier()
        shown = self._node_shown(key)
        shown["tenants"] = sorted(self._consensus.registry.tenants_of(key))
        return 200, shown

    def _node_shown(self, node_id: str) -> dict[str, Any]:
        registry = self._consensus.registry
        node = registry.node(node_id)
        return admin_json.node_json(
            registry, self._liveness, node, self._clock.seconds(), self._wall_clock()
        )
