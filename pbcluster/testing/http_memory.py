"""The proxy core between clients and upstreams in memory, for corpora and fuzzers.

Bytes in, bytes out, and what went upstream: nothing else is looked at, so that tests built on this
hold whatever the core looks like inside. Clients and upstreams are ends of ``http_wire``. Time is a
``task.Clock``.

    core = Core()                          # forwards every request to one stand-in upstream
    seen = core.exchange([b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"])
    seen.answers, seen.requests, seen.fate
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock

from pbcluster.testing.http_reference import Doubtful, Message, read_request, read_response
from pbcluster.testing.http_wire import Far, Wire
from pbcluster.web.headers import end_to_end
from pbcluster.web.interfaces import Attempt, Exchange, Forward, Outcome, RequestHandler
from pbcluster.web.limits import Limits
from pbcluster.web.pool import UpstreamPool
from pbcluster.web.server import HTTPServerFactory

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
#: What a client gets if the upstream's answer cannot be passed on.
BAD_ANSWER = b'{"status": 502, "message": "bad answer", "data": {}}'
_UNANSWERED = frozenset((Outcome.NOT_SENT, Outcome.NO_RESPONSE, Outcome.TIMEOUT, Outcome.REFUSED))


class StandIn(Far):
    """An upstream that answers each whole request.

    :ivar requests: the whole requests that came. :ivar doubt: why it could not read one.
    """

    def __init__(self, wire: Wire, protocol: Any, answer: Callable[[Message], bytes]) -> None:
        super().__init__(wire, protocol)
        self.requests: list[Message] = []
        self.doubt = ""
        self._answer = answer
        self._unread = b""

    def heard(self, data: bytes) -> None:
        """See :meth:`Far.heard`."""
        super().heard(data)
        self._unread += data
        try:
            while self._unread and (found := read_request(self._unread)) is not None:
                message, self._unread = found
                self.requests.append(message)
                answer = self._answer(message)
                if answer:
                    self.send(answer)
        except Doubtful as error:
            self.doubt = str(error)
            self.reset()

    @property
    def half_sent(self) -> bool:
        """Whether a part of a request came, and no more."""
        return bool(self._unread)


@attrs.frozen
class Seen:
    """What one client's connection came to.

    :ivar answers: the final responses that it got, in order. :ivar interim: how many 1xx.
    :ivar requests: what whole requests reached upstreams. :ivar fate: how the core ended the
        client's connection, "" if it is open. :ivar half_sent: a request that reached an upstream
        only in part, whose connection was then aborted.
    """

    answers: tuple[Message, ...]
    interim: int
    requests: tuple[Message, ...]
    fate: str
    half_sent: bool
    received: bytes = attrs.field(repr=False, eq=False)


def answers_of(received: bytes, methods: Sequence[bytes], ended: bool) -> list[Message]:
    """All responses in ``received``, interim ones included.

    :param methods: of the requests, in order; GET is assumed for further ones.
    :raises Doubtful: they are no responses, or the last is torn though the connection ended.
    """
    found: list[Message] = []
    left = list(methods)
    while received:
        method = left[0] if left else b"GET"
        read = read_response(received, method == b"HEAD", ended)
        if read is None and ended and not left:
            read = read_response(received, True, ended)  # a refused HEAD, perhaps
        if read is None:
            if ended:
                raise Doubtful(f"a torn response: {received[:100]!r}")
            break
        message, received = read
        found.append(message)
        if message.status >= 200 and left:
            left.pop(0)
    return found


class Core:
    """A server of the core, its pool, and upstreams that answer.

    :ivar clock: its time. :ivar upstreams: all connections made upstream.
    :ivar attempts: results of all forwards, if the default handler is used.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        handler: Callable[[Exchange], None] | None = None,
        answer: Callable[[Message], bytes] = lambda message: OK,
        upstream: Callable[[Wire, Any], Far] | None = None,
        clock: Clock | None = None,
        wire: Wire | None = None,
    ) -> None:
        """
        :param handler: gets each exchange; default: forward it as it is.
        :param answer: what a stand-in says to a whole request; empty: nothing.
        :param upstream: makes another far end than a :class:`StandIn`.
        """
        self.clock = clock if clock is not None else Clock()
        self.wire = wire if wire is not None else Wire()
        self.upstreams: list[Far] = []
        self.attempts: list[Attempt] = []
        self._make = upstream or (lambda wire, protocol: StandIn(wire, protocol, answer))
        self.pool = UpstreamPool(self.clock, self.endpoint)
        self.factory = HTTPServerFactory(
            handler or forward_to("192.0.2.7", 80, self.attempts.append),
            limits or Limits(),
            self.clock,
            pool=self.pool,
        )

    def endpoint(self, host: str, port: int, timeout_s: float) -> IStreamClientEndpoint:
        """As ``pool.EndpointMaker``."""
        return cast(IStreamClientEndpoint, _Endpoint(self))

    def connect(self, factory: Any) -> Deferred[Any]:
        """Connect the core to a new upstream."""
        protocol = factory.buildProtocol(None)
        far = self._make(self.wire, protocol)
        self.upstreams.append(far)
        protocol.makeConnection(far.near)
        return succeed(protocol)

    def client(self) -> Far:
        """A new client's connection."""
        protocol = self.factory.buildProtocol(None)
        far = Far(self.wire, protocol)
        protocol.makeConnection(far.near)
        return far

    def exchange(self, pieces: Sequence[bytes]) -> Seen:
        """Send ``pieces`` on a new connection, one read each, and see what comes of it.

        Upstream connections are not shared with earlier calls.
        """
        client = self.client()
        for piece in pieces:
            client.send(piece)
            self.wire.run()
        seen = self.look(client)
        self.end(client)
        return seen

    def look(self, client: Far) -> Seen:
        """What came of a client's connection, and of all upstreams since the last :meth:`end`.

        :raises Doubtful: an upstream or the client got something that is no HTTP.
        """
        stand_ins = [far for far in self.upstreams if isinstance(far, StandIn)]
        for far in stand_ins:
            if far.doubt:
                raise Doubtful(f"went upstream: {far.doubt} in {far.received!r}")
            if far.half_sent and client.ended and far.ended != "aborted":
                raise Doubtful("a request that broke off did not break off upstream")
        requests = tuple(message for far in stand_ins for message in far.requests)
        methods = [message.line[0] for message in requests]
        found = answers_of(client.received, methods, client.ended == "closed")
        return Seen(
            tuple(message for message in found if message.status >= 200),
            sum(message.status < 200 for message in found),
            requests,
            client.ended,
            any(far.half_sent for far in stand_ins),
            client.received,
        )

    def end(self, client: Far) -> None:
        """The client goes; all upstream connections too."""
        client.close()
        for far in self.upstreams:
            far.close()
        self.wire.run()
        self.upstreams.clear()

    def nothing_left(self) -> list[str]:
        """End everything; what is still there then: a leak each."""
        self.pool.close()
        self.factory.abort_all()
        self.wire.run()
        self.clock.advance(0)
        left = [str(call) for call in self.clock.getDelayedCalls()]
        if self.factory.connection_count:
            left.append(f"{self.factory.connection_count} client connections")
        if self.factory.replay.used_bytes:
            left.append(f"{self.factory.replay.used_bytes} bytes of bodies")
        return left


def forward_to(host: str, port: int, told: Callable[[Attempt], None]) -> RequestHandler:
    """A handler that forwards every request as it is, with all its end-to-end fields.

    :param told: gets the result of each; what had none that the client saw is answered 502.
    """

    def handle(exchange: Exchange) -> None:
        head = exchange.head

        def over(attempt: Attempt) -> None:
            told(attempt)
            if attempt.outcome in _UNANSWERED:
                exchange.respond(502, BAD_ANSWER)

        plan = Forward(
            host=host,
            port=port,
            method=head.method,
            target=head.target,
            headers=end_to_end(head.headers),
        )
        exchange.forward(plan, over)

    return handle


class _Endpoint:
    def __init__(self, core: Core) -> None:
        self._core = core

    def connect(self, factory: Any) -> Deferred[Any]:
        return self._core.connect(factory)
