"""What the gateway's tests share: an exchange, a control plane and a whole gateway on a Clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from pbcluster import signing, wire
from pbcluster.errors import DeadlineExceeded, NotFound, PBClusterError
from pbcluster.gateway.lookups import Lookups
from pbcluster.gateway.nodes import Nodes
from pbcluster.gateway.parts import Record
from pbcluster.gateway.proxy import Proxy
from pbcluster.gateway.routes import RouteCache
from pbcluster.gateway.tenant_id import TenantFinder
from pbcluster.gateway.token_keys import TokenKeyQuestions
from pbcluster.gateway.tokens import Tokens
from pbcluster.gateway.trusted import TrustedNetworks
from pbcluster.web.interfaces import (
    Attempt,
    Exchange,
    Forward,
    Headers,
    Outcome,
    Refuse,
    RequestHead,
    ResponseHead,
)

KEY = b"key of gateway_1"


def route(name: str = "shop", **changes: Any) -> wire.Route:
    """A route of tenant ``tenant_<name>...`` to node_a."""
    values: dict[str, Any] = {
        "tenant_id": f"tenant_{name}00000000",
        "name": name,
        "node_id": "node_a",
        "address": "http://127.0.0.1:8090",
        "incarnation": 1,
        "epoch": 1,
        "hosts": (f"{name}.localhost",),
    }
    return wire.Route(**(values | changes))


def head(
    method: bytes = b"GET",
    target: bytes = b"/api/health",
    host: bytes = b"shop.localhost",
    headers: Headers = (),
    content_length: int | None = None,
) -> RequestHead:
    """A request."""
    fields = [(b"Host", host + b":8080"), *headers]
    return RequestHead(method, target, host, fields, content_length, False, "192.0.2.7")


def answer(status: int = 200, *headers: tuple[bytes, bytes]) -> ResponseHead:
    """A node's response head."""
    return ResponseHead(status, b"", list(headers))


def marked(reason: bytes, status: int = 503, epoch: int | None = None) -> ResponseHead:
    """A refusal with the node's mark."""
    fields = [(signing.NOT_PROCESSED, reason)]
    if epoch is not None:
        fields.append((signing.NODE_EPOCH, b"%d" % epoch))
    return ResponseHead(status, b"", fields)


def fields_of(lines: bytes) -> list[tuple[bytes, bytes]]:
    """Field lines as they are sent, taken apart."""
    split = (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])
    return [(name, value) for name, _, value in split]


#: What a node does with one attempt: an answer, a failure, or None: nothing yet.
Step = ResponseHead | Outcome | None


class FakeExchange(Exchange):
    """An exchange whose attempts are decided by ``node``."""

    def __init__(
        self, request: RequestHead, node: Callable[[Forward], Step], *, repeatable: bool = True
    ) -> None:
        self.head = request
        self.client_gone = False
        self.plans: list[Forward] = []
        self.repeatable = repeatable
        self.reused = self.junk = False
        self.passed: ResponseHead | None = None
        self.answered: tuple[int, bytes, bytes, dict[bytes, bytes]] | None = None
        self.aborted = False
        self.body_limit: int | None = None
        self.pending: tuple[Forward, Callable[[Attempt], None]] | None = None
        self._node = node
        self._gone: list[Callable[[], None]] = []

    @property
    def status(self) -> int:
        """What the client got; 0: nothing yet."""
        if self.passed is not None:
            return self.passed.status
        return self.answered[0] if self.answered is not None else 0

    def forward(self, plan: Forward, done: Callable[[Attempt], None]) -> None:
        assert self.status == 0, "forwarded after an answer"
        assert self.pending is None, "two attempts at once"
        self.plans.append(plan)
        step = self._node(plan)
        if step is None:
            self.pending = (plan, done)
        else:
            self._take(plan, done, step)

    def finish(self, step: ResponseHead | Outcome) -> None:
        """End the attempt that is pending."""
        assert self.pending is not None
        (plan, done), self.pending = self.pending, None
        self._take(plan, done, step)

    def _take(
        self, plan: Forward, done: Callable[[Attempt], None], step: ResponseHead | Outcome
    ) -> None:
        if isinstance(step, Outcome):
            told = {"reused": self.reused, "junk": self.junk}
            done(Attempt(step, self.repeatable, error=step.value, **told))
            return
        assert plan.on_response is not None
        try:
            passed = plan.on_response(step)
        except Refuse:
            done(Attempt(Outcome.REFUSED, self.repeatable, step))
            return
        assert isinstance(passed, ResponseHead)
        self.passed = passed
        done(Attempt(Outcome.COMPLETED, False, step, response_bytes=2))

    def respond(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = b"application/json",
        headers: Headers = (),
        close: bool = False,
    ) -> None:
        assert self.status == 0, "answered twice"
        self.answered = (status, body, content_type, dict(headers))

    def abort(self) -> None:
        self.aborted = True

    def give_up(self, error: str) -> None:
        if self.pending is not None:
            self.finish(Outcome.NO_RESPONSE)

    def when_gone(self, callback: Callable[[], None]) -> None:
        self._gone.append(callback)

    def go(self) -> None:
        """The client goes away."""
        self.client_gone = True
        if self.pending is not None:
            self.finish(Outcome.CLIENT_GONE)
        for callback in self._gone:
            callback()

    def limit_body(self, max_bytes: int) -> bool:
        self.body_limit = max_bytes
        return True


class FakeControlPlane:
    """Answers look-ups from :attr:`routes`.

    :ivar routes: key (name, domain or id) → route. :ivar unplaced: keys that only the leader knows.
    :ivar away: nobody answers: each question fails after its timeout. :ivar error: raised instead.
    :ivar delay_s: an answer takes so long.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.routes: dict[str, wire.Route] = {}
        self.unplaced: set[str] = set()
        self.away = False
        self.error: PBClusterError | None = None
        self.delay_s = 0.0
        self.asked: list[wire.Body] = []
        self.index = 1
        self.token_keys: list[wire.TokenKey] = []

    @property
    def lookups(self) -> list[wire.LookupRoute]:
        return [body for body in self.asked if isinstance(body, wire.LookupRoute)]

    @property
    def suspected(self) -> list[wire.SuspectNode]:
        return [body for body in self.asked if isinstance(body, wire.SuspectNode)]

    def know(self, found: wire.Route) -> wire.Route:
        for key in (found.name, found.tenant_id, *found.hosts):
            self.routes[key] = found
        return found

    def start(self, handler: object) -> None:
        """Nothing asks gateways."""

    def stop(self) -> None:
        """Nothing to close."""

    async def ask(
        self,
        body: wire.Body,
        *,
        timeout_s: float,
        idempotency_key: str = "",
        any_member: bool = False,
    ) -> wire.Body:
        self.asked.append(body)
        if self.away:
            await self._pass(timeout_s)
            raise DeadlineExceeded("nobody answered")
        if self.delay_s:
            await self._pass(self.delay_s)
        if isinstance(body, wire.SuspectNode):
            return wire.Ok()
        if self.error is not None:
            raise self.error
        if isinstance(body, wire.ListTokenKeys):
            return wire.TokenKeys(self.index, tuple(self.token_keys))
        if isinstance(body, wire.SnapshotRequest):
            found = [self.routes[one] for one in body.tenant_ids if one in self.routes]
            return wire.Snapshot(self.index, tuple(found))
        assert isinstance(body, wire.LookupRoute)
        key = body.name or body.domain or body.tenant_id
        if key not in self.routes or (key in self.unplaced and not body.place):
            raise NotFound("no such tenant")
        return wire.RouteFound(self.index, self.routes[key])

    async def _pass(self, seconds: float) -> None:
        waiting: Deferred[None] = Deferred()
        self.clock.callLater(seconds, waiting.callback, None)
        await waiting


class World:
    """A gateway on a Clock, with one control plane and scripted nodes.

    :ivar behave: node's port → what it does with an attempt.
    :ivar well: node's base URL → what it says of its health.
    """

    def __init__(
        self, *, hold_s: float = 30.0, ttl_s: float = 300.0, trusted: Sequence[str] = ()
    ) -> None:
        self.clock = Clock()
        self.clock.advance(1000.0)
        self.cp = FakeControlPlane(self.clock)
        self.routes = RouteCache(ttl_s)
        self.lookups = Lookups(self.clock, self.cp, self.routes)
        self.well: dict[str, bool] = {}
        self.health_questions: list[str] = []
        self.health_limits_s: list[float] = []
        self.nodes = Nodes(self.clock, self.cp, self.routes, self._health, Random(1))
        self.records: list[Record] = []
        self.behave: dict[int, Callable[[Forward], Step]] = {}
        ids = iter(range(1, 1_000_000))
        self.tokens = Tokens("cluster_1", self.clock.seconds)
        self.token_keys = TokenKeyQuestions(self.clock, self.cp, self.tokens)
        self.proxy = Proxy(
            gateway_id="gateway_1",
            key=KEY,
            tenants=TenantFinder(("localhost",), self.tokens, TrustedNetworks(trusted)),
            token_keys=self.token_keys,
            hold_s=hold_s,
            clock=self.clock,
            random=Random(2),
            unix_ms=lambda: int(self.clock.seconds() * 1000),
            new_id=lambda: f"{next(ids):032x}",
            routes=self.routes,
            lookups=self.lookups,
            nodes=self.nodes,
            told=self.records.append,
        )

    async def _health(self, node_id: str, address: str, timeout_s: float) -> bool:
        self.health_questions.append(address)
        self.health_limits_s.append(timeout_s)
        return self.well.get(address, True)

    def node(self, port: int, *steps: Step) -> None:
        """The node at ``port`` does this, one step an attempt; the last one for ever."""
        rest = list(steps)
        self.behave[port] = lambda plan: rest.pop(0) if len(rest) > 1 else rest[0]

    def send(self, request: RequestHead | None = None, *, repeatable: bool = True) -> FakeExchange:
        """A request arrives."""
        exchange = FakeExchange(
            request if request is not None else head(),
            lambda plan: self.behave[plan.port](plan),
            repeatable=repeatable,
        )
        self.proxy.handle(exchange)
        return exchange

    def advance(self, seconds: float, step_s: float = 0.05) -> None:
        """Let time pass in small steps."""
        left = seconds
        while left > 1e-9:
            self.clock.advance(min(step_s, left))
            left -= step_s
        self.clock.advance(1e-6)  # sums of small steps fall short by a rounding error

    def until(self, exchange: FakeExchange, limit_s: float = 60.0) -> float:
        """Let time pass until the client has its answer; gives the seconds it took."""
        began = self.clock.seconds()
        while exchange.status == 0 and self.clock.seconds() - began < limit_s:
            self.clock.advance(0.01)
        return self.clock.seconds() - began
