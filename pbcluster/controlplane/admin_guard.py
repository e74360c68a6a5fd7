"""What every route of the admin API goes through: authority, the leader, JSON, the log.

Routes stand in classes below :class:`AdminRoutes`, registered with :data:`app` and wrapped by
:func:`guarded`. All but ``health`` need the admin token; what only the leader can answer is passed
on to it. The log has method, path, status and duration, never a body, a header or a query.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from pbcluster.controlplane import admin_json
from pbcluster.controlplane.admin_auth import AdminAuth
from pbcluster.controlplane.admin_forward import Forwarder, PassedOn
from pbcluster.controlplane.admin_members import Group
from pbcluster.controlplane.consensus import Consensus
from pbcluster.controlplane.executor import Executor, utc_now
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.migrating import Migrating
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.requests import Requests
from pbcluster.errors import (
    InvalidInput,
    NotFound,
    NotLeader,
    PBClusterError,
    TooLarge,
    Unavailable,
)
from pbcluster.records import TenantRecord, TenantStatus

MAX_BODY_BYTES = 1024 * 1024
MAX_KEY_BYTES = 200
#: Routes that any member answers by itself, not the leader for it.
_ANSWERED_HERE = ("health", "snapshot")

log = Logger()
#: All routes of all classes.
app = Klein()

R = TypeVar("R", bound="AdminRoutes")
Route = Callable[..., Coroutine[Any, Any, tuple[int, Any]]]
InThread = Callable[..., Awaitable[Any]]


def answer(request: Request, status: int, value: Any) -> bytes:
    """The bytes of an answer; its status and headers are set."""
    request.setResponseCode(status)
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"server", b"pbcluster")
    if isinstance(value, bytes):
        request.setHeader(b"content-type", b"application/octet-stream")
        return value
    request.setHeader(b"content-type", b"application/json")
    return json.dumps(value, default=str).encode() + b"\n"


def body_of(request: Request) -> bytes:
    """The whole body. :raises TooLarge: over its bound."""
    content = request.content
    body: bytes = content.read(MAX_BODY_BYTES + 1) if content is not None else b""
    if len(body) > MAX_BODY_BYTES:
        raise TooLarge(f"a body may have {MAX_BODY_BYTES} bytes")
    return body


def relay(request: Request, passed: PassedOn) -> bytes:
    """The leader's answer as ours."""
    request.setResponseCode(passed.status)
    for name, value in passed.headers.items():
        request.setHeader(name, value)
    request.setHeader(b"server", b"pbcluster")
    return passed.body


def refuse(request: Request, error: PBClusterError) -> bytes:
    """As :func:`answer`, of an error."""
    if isinstance(error, Unavailable):
        request.setHeader(b"retry-after", b"%d" % max(1, round(error.retry_after_s)))
    if error.status == 401:
        request.setHeader(b"www-authenticate", b"Bearer")
    return answer(request, error.status, admin_json.error_body(error))


def idempotency_key(request: Request) -> str:
    """The request's key, empty if it has none. :raises InvalidInput: it cannot be one."""
    key: bytes = request.getHeader(b"idempotency-key") or b""
    rule = f"at most {MAX_KEY_BYTES} printable ASCII characters"
    if len(key) > MAX_KEY_BYTES or not key.decode("latin-1").isprintable() or not key.isascii():
        raise InvalidInput(f"Idempotency-Key: {rule}", field="Idempotency-Key", allowed=rule)
    return key.decode("ascii")


def guarded(route: Route) -> Callable[..., Deferred[bytes]]:
    """Authorise, run, turn what comes out into JSON, log."""

    @wraps(route)
    def handled(self: AdminRoutes, request: Request, **parts: str) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self.handle(route, request, parts))

    return handled


class AdminRoutes:
    """What routes share."""

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
        migrating: Migrating | None = None,
        deleted_keep_s: float = 7 * 86400.0,
    ) -> None:
        """
        :param in_thread: calls a slow function in a thread, like ``deferToThreadPool``.
        :param group: the control plane's members.
        :param forwarder: passes on what only the leader can answer.
        :param deleted_keep_s: seconds for which a deleted tenant's objects stay in S3.
        :param counts: what this member's sockets dropped and refused, for its health.
        :param migrating: moves tenants; None: none can be moved.
        """
        self._migrations = migrating
        self._counts = counts
        self._deleted_keep_s = deleted_keep_s
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

    async def handle(self, route: Route, request: Request, parts: dict[str, str]) -> bytes:
        """Answer ``request`` by ``route``."""
        began = self._clock.seconds()
        status = 500
        try:
            if route.__name__ != "health":
                self._authorise(request)
            here = route.__name__ in _ANSWERED_HERE
            passed = None if here else await self._pass_on(request)
            if passed is not None:
                status, body = passed.status, relay(request, passed)
            else:
                status, value = await route(self, request, **parts)
                body = answer(request, status, value)
        except PBClusterError as error:
            status = error.status
            body = refuse(request, error)
        except Exception:
            log.failure("the admin API failed at {path}", path=request.path)
            body = refuse(request, PBClusterError("internal error"))
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
        return await self._forwarder.pass_on(request, leader, body_of(request))

    def _authorise(self, request: Request) -> None:
        address = getattr(request.getClientAddress(), "host", "?")
        self._auth.check(request.getHeader(b"authorization"), address, self._clock.seconds())

    @app.handle_errors(HTTPException)
    def _no_route(self, request: Request, failure: Any) -> bytes:
        status = failure.value.code or 500
        told = {404: "no such page", 405: "this method is not allowed here"}
        error = NotFound(told.get(status, "bad request"))
        return answer(request, status, admin_json.error_body(error) | {"status": status})

    def _living(self, key: str, *, gone: bool = False) -> TenantRecord:
        """:raises NotFound: there is none, or, unless ``gone`` is fine, it is deleted."""
        tenant = self._consensus.registry.tenant(key)
        if tenant.status is TenantStatus.DELETED and not gone:
            raise NotFound(f"tenant {key!r} is deleted")
        return tenant
