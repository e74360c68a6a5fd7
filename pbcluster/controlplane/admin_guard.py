"""What every route of the admin API goes through: authority, the leader, JSON, the log, the audit.

Routes stand in classes below :class:`AdminRoutes`, registered by :func:`endpoint`, which says who
may use them and what goes in and out. All but ``health`` need a token; what only the leader can
answer is passed on to it. The log has method, path, status, duration, who and the request's id,
never a body, a header or a query.

What a route changes it proposes by :meth:`AdminRoutes.propose`, so that the audit trail tells of it
in the same log entry; what it does without a change of the registry it tells by
:meth:`AdminRoutes.noted`.
"""

from __future__ import annotations

import inspect
import json
import os
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import datetime
from functools import wraps
from typing import Any, TypeVar

from klein import Klein
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.server import Request
from werkzeug.exceptions import HTTPException

from pbcluster.authority import Pair
from pbcluster.controlplane import admin_body, admin_caller, admin_json, audit
from pbcluster.controlplane import commands as c
from pbcluster.controlplane.admin_auth import AdminAuth, Principal
from pbcluster.controlplane.admin_caller import Caller, ClientMark, caller_of
from pbcluster.controlplane.admin_forward import Forwarder, PassedOn
from pbcluster.controlplane.admin_members import Group
from pbcluster.controlplane.admin_table import MAX_KEY_BYTES, Operation, Param, read_query
from pbcluster.controlplane.consensus import Consensus
from pbcluster.controlplane.executor import Executor, utc_now
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.migrating import Migrating
from pbcluster.controlplane.outcomes import Outcome
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.requests import Requests
from pbcluster.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    NotLeader,
    PBClusterError,
    TooLarge,
    Unauthorized,
)
from pbcluster.records import Role, TenantRecord, TenantStatus

MAX_BODY_BYTES = 1024 * 1024
#: Passwords that are hashed at once: a member with many of them must still hear its nodes' leases.
HASHES_AT_ONCE = max(1, (os.cpu_count() or 1) // 2)
#: The quotes belong to it (RFC 9110); who leaves them away is understood.
_ETAG = re.compile(rb'("?)([0-9]{1,18})\1')
log = Logger()
#: All routes of all classes.
app = Klein()
#: All operations, by the name of their route.
OPERATIONS: dict[str, Operation] = {}

R = TypeVar("R", bound="AdminRoutes")
Route = Callable[..., Coroutine[Any, Any, tuple[int, Any]]]
InThread = Callable[..., Awaitable[Any]]


def answer(request: Request, status: int, value: Any) -> bytes:
    """The bytes of an answer; its status and headers are set."""
    request.setResponseCode(status)
    request.setHeader(b"cache-control", b"no-store")
    request.setHeader(b"server", b"pbcluster")
    if isinstance(value, dict) and isinstance(value.get("version"), int) and status < 300:
        request.setHeader(b"etag", b'"%d"' % value["version"])
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
    retry_after_s = error.data.get("retry_after_s")
    if retry_after_s is not None:
        request.setHeader(b"retry-after", b"%d" % max(1, round(retry_after_s)))
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


def version_of(request: Request, in_body: int = 0) -> int:
    """The version that a change expects, by If-Match or by its body; 0: any.

    :raises InvalidInput: If-Match cannot be one. :raises Conflict: it differs from the body's, or
        it is 0, which nothing has.
    """
    given: bytes | None = request.getHeader(b"if-match")
    if given is None or given.strip() == b"*":
        return in_body
    found = _ETAG.fullmatch(given.strip())
    if found is None:
        rule = 'the ETag of an answer, like "17", or *'
        raise InvalidInput(f"If-Match must be {rule}", field="If-Match", allowed=rule)
    version = int(found[2])
    if version != in_body and (in_body or not version):
        raise Conflict("If-Match names another version than the body, or one that nothing has")
    return version


def endpoint(
    method: str,
    path: str,
    *,
    role: Role | None,
    query: tuple[Param, ...] = (),
    body: Any = None,
    body_required: bool = True,
    answers: Mapping[int, Any],
    here: bool = False,
    conditional: bool = False,
) -> Callable[[Route], Callable[..., Deferred[bytes]]]:
    """Register a route; see ``admin_table.Operation`` for what the words mean.

    The route is called with the request, the parts of its path, ``query`` (a mapping) if it has
    parameters, and ``body`` (of its type) if it has one.
    """

    def registered(route: Route) -> Callable[..., Deferred[bytes]]:
        name = route.__name__
        summary, _, more = inspect.cleandoc(route.__doc__ or name).partition("\n")
        operation = Operation(
            method,
            path,
            name,
            summary,
            role,
            query,
            body,
            body_required,
            answers,
            here,
            conditional,
            more.strip(),
        )
        assert name not in OPERATIONS, name
        OPERATIONS[name] = operation
        handled: Callable[..., Deferred[bytes]] = app.route(path, methods=[method])(
            _handled(route, operation)
        )
        return handled

    return registered


def guarded(route: Route) -> Callable[..., Deferred[bytes]]:
    """As :func:`endpoint`, for a route that Klein knows already and that reads its own body and
    query. Operators may use it."""
    return _handled(route, Operation("", "", route.__name__, "", Role.OPERATOR))


def _handled(route: Route, operation: Operation) -> Callable[..., Deferred[bytes]]:
    @wraps(route)
    def handled(self: AdminRoutes, request: Request, **parts: str) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self.handle(route, request, parts, operation))

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
        mark: ClientMark | None = None,
        answered: Callable[[str, int, float], None] = lambda operation, status, duration_s: None,
        migrating: Migrating | None = None,
        deleted_keep_s: float = 7 * 86400.0,
        authority: Pair | None = None,
    ) -> None:
        """
        :param in_thread: calls a slow function in a thread, like ``deferToThreadPool``.
        :param group: the control plane's members.
        :param forwarder: passes on what only the leader can answer.
        :param deleted_keep_s: seconds for which a deleted tenant's objects stay in S3.
        :param counts: what this member's sockets dropped and refused, for its health.
        :param migrating: moves tenants; None: none can be moved.
        :param mark: tells from where a request came that a member passed on.
        :param authority: certifies processes that join; None: nobody can.
        :param answered: is told operation, status and duration in seconds of each request.
        """
        self._migrations = migrating
        self._authority = authority
        self._answered = answered
        self._mark = ClientMark("") if mark is None else mark
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
        self._hashing = DeferredSemaphore(HASHES_AT_ONCE)
        self._wall_clock = wall_clock

    async def handle(
        self, route: Route, request: Request, parts: dict[str, str], operation: Operation
    ) -> bytes:
        """Answer ``request`` by ``route``."""
        began = self._clock.seconds()
        request_id = admin_caller.request_id_of(request)
        caller = Caller(self._mark.address_of(request, request_id), request_id)
        request.setHeader(b"x-request-id", request_id.encode())
        status = 500
        try:
            caller = await self._authorised(request, caller, operation)
            admin_caller.remember(request, caller)
            passed = None if operation.here else await self._pass_on(request, caller)
            if passed is not None:
                status, body = passed.status, relay(request, passed)
            else:
                status, value = await route(self, request, **parts, **_read(operation, request))
                body = answer(request, status, value)
        except PBClusterError as error:
            status = error.status
            body = refuse(request, error)
        except Exception:
            log.failure("the admin API failed at {path}", path=request.path)
            body = refuse(request, PBClusterError("internal error"))
        duration_s = self._clock.seconds() - began
        self._answered(operation.name, status, duration_s)
        log.info(
            "admin {method} {path} {status} {ms} ms by {actor} from {address} id {request_id}",
            method=request.method.decode("ascii", "replace"),
            path=request.path.decode("ascii", "backslashreplace")[:200],
            status=status,
            ms=round(duration_s * 1000),
            actor=caller.actor or "nobody",
            address=caller.address,
            request_id=request_id,
        )
        return body

    async def _pass_on(self, request: Request, caller: Caller) -> PassedOn | None:
        """The leader's answer; None: this member answers. :raises NotLeader: nobody can."""
        if self._forwarder is None or self._consensus.is_leader:
            return None
        leader = self._consensus.leader_endpoint
        if self._forwarder.is_marked(request):
            raise NotLeader("this member does not lead (any more)", leader=leader)
        further = self._mark.headers(request, caller) | {"x-request-id": caller.request_id}
        passed = await self._forwarder.pass_on(request, leader, body_of(request), further)
        if passed.status == Unauthorized.status:
            self._auth.failed(caller.address, self._clock.seconds())
        return passed

    async def _authorised(self, request: Request, caller: Caller, operation: Operation) -> Caller:
        """:raises Unauthorized, Forbidden, Limited: it may not."""
        header = request.getHeader(b"authorization")
        if operation.role is None and header is None:
            return caller
        principal = None if header is None else self._auth.known(header)
        if header is not None and principal is None and not self._consensus.is_leader:
            # The token may be newer than what this member knows.
            self._auth.limit(caller.address, self._clock.seconds())
            await self._consensus.read_barrier()
        if principal is None:
            principal = self._auth.check(header, caller.address, self._clock.seconds())
        principal.need(operation.role or Role.VIEWER)
        return Caller(caller.address, caller.request_id, principal)

    # -- the audit trail --

    def _note(self, request: Request, action: str, target: str, detail: str) -> c.AuditNote:
        caller = caller_of(request)
        who = caller.principal or Principal("", Role.VIEWER)
        return audit.note(
            who.id, who.role.value, caller.address, caller.request_id, action, target, detail
        )

    async def propose(
        self,
        request: Request,
        command: c.AnyCommand,
        action: str,
        target: str = "",
        detail: str = "",
        *,
        key: str = "",
    ) -> Outcome:
        """Commit a command of ``request``, with an entry in the audit trail.

        :param action: RESOURCE.WHAT, like ``tenant.delete``. :param target: id of what it is about.
        :param detail: short, for people; never a secret, nothing of a body but what is none.
        :param key: the command's idempotency key.
        :raises PBClusterError: as ``Consensus.propose``.
        """
        note = self._note(request, action, target, detail)
        return await self._consensus.propose(command, key, note)

    async def noted(
        self, request: Request, action: str, target: str = "", detail: str = ""
    ) -> None:
        """Tell the audit trail what ``request`` is about to do, where that changes nothing in the
        registry (a login into a tenant, a look into its log). When it returns, the entry is
        committed: do it then, so that nothing is done without one.

        :raises PBClusterError: it was not committed: do not do it.
        """
        note = self._note(request, action, target, detail)
        await self._consensus.propose(c.Noted(self._wall_clock()), "", note)

    @app.handle_errors(HTTPException)
    def _no_route(self, request: Request, failure: Any) -> bytes:
        status = failure.value.code or 500
        told = {404: "no such page", 405: "this method is not allowed here"}
        error = NotFound(told.get(status, "bad request"))
        request.setHeader(b"x-request-id", admin_caller.request_id_of(request).encode())
        path = request.path.decode("ascii", "replace")
        literal = {each.method for each in OPERATIONS.values() if each.path == path}
        allowed = literal or set(getattr(failure.value, "valid_methods", None) or ()) - {"HEAD"}
        if status == 405 and allowed:
            request.setHeader(b"allow", ", ".join(sorted(allowed)).encode())
        return answer(request, status, admin_json.error_body(error) | {"status": status})

    def _living(self, key: str, *, gone: bool = False) -> TenantRecord:
        """:raises NotFound: there is none, or, unless ``gone`` is fine, it is deleted."""
        tenant = self._consensus.registry.tenant(key)
        if tenant.status is TenantStatus.DELETED and not gone:
            raise NotFound(f"tenant {key!r} is deleted")
        return tenant


def _read(operation: Operation, request: Request) -> dict[str, Any]:
    """Query and body of an operation that has them. :raises CallerError: they, or the key, are
    wrong."""
    if operation.method != "GET":
        idempotency_key(request)
    found: dict[str, Any] = {}
    if operation.body is not None:
        content = body_of(request)
        if not content.strip() and not operation.body_required:
            content = b"{}"
        found["body"] = admin_body.typed(content, operation.body, admin_json.RULES)
    if operation.query:
        found["query"] = read_query(operation.query, request.args)
    return found
