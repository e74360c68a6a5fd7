"""The node's HTTP proxy for tenants, on loopback.

What holds:

* A name is resolved here, each address is checked, and the connection goes to the very address that
  was checked: what the name resolves to a moment later does not matter.
* Addresses of this machine are refused whatever they look like.
* Each tenant has credentials of its own, good for this process's life, and a bound of connections.
* Every wait has a deadline; a slow side holds the other back, nothing is buffered without bound.

It looks into nothing that it carries, and stores nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, cast
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IListeningPort, IPushProducer, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from pbcluster.node.egress.addresses import Network, is_public
from pbcluster.node.egress.heads import MAX_HEAD_BYTES, Order, Refused, parse
from pbcluster.node.parts import spawn

log = Logger()

LOOPBACK = "127.0.0.1"
#: From the connection to the end of its request's head.
HEAD_TIMEOUT_S = 10.0
RESOLVE_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 10.0
#: A connection over which nothing goes either way.
IDLE_TIMEOUT_S = 300.0
#: Of all tenants together; beyond it connections are closed unread.
MAX_CONNECTIONS = 2000
#: Names being resolved at once; each takes a thread.
MAX_RESOLVING = 4
#: Addresses of one name that are tried.
MAX_ADDRESSES = 4
_REASONS = {400: "Bad Request", 403: "Forbidden", 407: "Proxy Authentication Required"}
_REASONS |= {429: "Too Many Requests", 502: "Bad Gateway", 504: "Gateway Timeout"}

#: Name → its numeric addresses; raises OSError.
Resolve = Callable[[str], Awaitable[list[str]]]


class EgressProxy:
    """See the module."""

    def __init__(
        self,
        reactor: Any,
        *,
        connections: int,
        refused: Iterable[Network] = (),
        resolve: Resolve | None = None,
        allowed: Callable[[str], bool] | None = None,
    ) -> None:
        """
        :param reactor: TCP, time and threads.
        :param connections: of one tenant at once. :param refused: ranges beside the special ones.
        :param resolve: None: the system's resolver.
        :param allowed: judges a numeric address; None: public, and not of this machine.
        """
        ranges = tuple(refused)
        self.reactor = reactor
        self.connections = connections
        self.resolve = resolve or self._resolve
        self.allowed = allowed or (lambda text: is_public(text, ranges) and not is_local(text))
        self.open: Counter[str] = Counter()
        self.refusals: Counter[int] = Counter()
        self.total = 0
        self._secret = secrets.token_bytes(32)
        self._resolving = 0
        self._listening: IListeningPort | None = None
        self._clients: set[_Client] = set()

    @property
    def port(self) -> int:
        """Where it listens, 0: it does not."""
        return 0 if self._listening is None else int(cast(Any, self._listening.getHost()).port)

    def listen(self) -> None:
        """Listen at a free port of loopback. :raises CannotListenError: none can be had."""
        factory = Factory.forProtocol(lambda: _Client(self))
        self._listening = self.reactor.listenTCP(0, factory, interface=LOOPBACK)

    async def stop(self) -> None:
        """Close everything."""
        listening, self._listening = self._listening, None
        if listening is not None:
            await cast(Any, listening.stopListening())
        for client in list(self._clients):
            client.abort()

    def password(self, tenant_id: str) -> str:
        """The tenant's password here."""
        return hmac.new(self._secret, tenant_id.encode(), hashlib.sha256).hexdigest()

    def environment(self, tenant_id: str) -> dict[str, str]:
        """What tells the tenant's process of the proxy; empty: it does not run."""
        if not self.port:
            return {}
        user = quote(tenant_id, safe="")
        url = f"http://{user}:{self.password(tenant_id)}@{LOOPBACK}:{self.port}"
        return {"HTTP_PROXY": url, "HTTPS_PROXY": url}

    def knows(self, order: Order) -> bool:
        """Whether its credentials are right."""
        return hmac.compare_digest(self.password(order.user).encode(), order.password.encode())

    async def _resolve(self, name: str) -> list[str]:
        if self._resolving >= MAX_RESOLVING:
            raise OSError("too many names are being resolved")
        self._resolving += 1

        def look_up() -> list[str]:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(each[4][0]) for each in found))

        def done(result: Any) -> Any:
            self._resolving -= 1
            return result

        looking = deferToThreadPool(self.reactor, self.reactor.getThreadPool(), look_up)
        return cast("list[str]", await looking.addBoth(done))

    # -- from the clients --

    def came(self, client: _Client) -> bool:
        """A connection; whether there is room for it."""
        if len(self._clients) >= MAX_CONNECTIONS:
            return False
        self._clients.add(client)
        return True

    def went(self, client: _Client) -> None:
        """It ended."""
        self._clients.discard(client)


def is_local(text: str) -> bool:
    """Whether the address is one of this machine's own: only those can be bound."""
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((text, 0))
            return True
    except OSError:
        return False


class _Client(Protocol):
    """A connection of a tenant's process."""

    def __init__(self, proxy: EgressProxy) -> None:
        self._proxy = proxy
        self._received = b""
        self._user = ""
        self._server: _Server | None = None
        self._timer: Any = None
        self._answered = False
        self._gone = False

    def connectionMade(self) -> None:
        if not self._proxy.came(self):
            self.abort()
            return
        self.wait(HEAD_TIMEOUT_S)

    def wait(self, timeout_s: float) -> None:
        """(Again) so long until it is cut off."""
        if self._timer is not None and self._timer.active():
            self._timer.reset(timeout_s)
        elif not self._gone:
            self._timer = self._proxy.reactor.callLater(timeout_s, self.abort)

    def dataReceived(self, data: bytes) -> None:
        if self._server is not None:
            self.wait(IDLE_TIMEOUT_S)
            self._server.send(data)
            return
        self._received += data
        if self._answered:
            return
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if end:
            self._answered = True
            self._pause()
            spawn(self._carry_out(head, rest), "a tenant's way out")
        elif len(self._received) > MAX_HEAD_BYTES:
            self._refuse(Refused(400, "the head is too large"))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._proxy.went(self)
        if self._user:
            self._proxy.open[self._user] -= 1
            if not self._proxy.open[self._user]:
                del self._proxy.open[self._user]
        if self._server is not None:
            self._server.finish()

    async def _carry_out(self, head: bytes, rest: bytes) -> None:
        try:
            order = parse(head)
            self._admit(order)
            self.wait(RESOLVE_TIMEOUT_S + CONNECT_TIMEOUT_S * MAX_ADDRESSES)
            server = await self._connect(order)
        except Refused as error:
            self._refuse(error)
            return
        if self._gone:
            server.finish()
            return
        self._server = server
        self._proxy.total += 1
        transport = cast(Any, self.transport)
        transport.registerProducer(server.transport, True)
        cast(Any, server.transport).registerProducer(transport, True)
        self.wait(IDLE_TIMEOUT_S)
        if order.forward:
            server.send(order.forward + rest)
        else:
            transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            if rest:
                server.send(rest)
        self._resume()

    def _admit(self, order: Order) -> None:
        if not self._proxy.knows(order):
            raise Refused(407, "the credentials are wrong")
        if self._proxy.open[order.user] >= self._proxy.connections:
            raise Refused(429, f"{self._proxy.connections} connections are open already")
        if self._gone:
            raise Refused(400, "the client went away")
        self._user = order.user
        self._proxy.open[order.user] += 1

    async def _connect(self, order: Order) -> _Server:
        try:
            found = await self._proxy.resolve(order.host)
        except (OSError, UnicodeError):
            raise Refused(502, f"{order.host} cannot be resolved") from None
        allowed = [address for address in found if self._proxy.allowed(address)][:MAX_ADDRESSES]
        if not allowed:
            raise Refused(403, f"{order.host} has no address that may be reached from here")
        for address in allowed:
            if self._gone:
                break
            kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            endpoint = kind(self._proxy.reactor, address, order.port, timeout=CONNECT_TIMEOUT_S)
            try:
                connecting: Deferred[Any] = endpoint.connect(
                    Factory.forProtocol(lambda: _Server(self))
                )
                return cast(_Server, await connecting)
            except ConnectError:
                continue
        raise Refused(502, f"{order.host} does not answer at port {order.port}")

    def _refuse(self, error: Refused) -> None:
        self._answered = True
        self._proxy.refusals[error.status] += 1
        if self._gone:
            return
        body = f"{error}\n".encode()
        lines = [
            f"HTTP/1.1 {error.status} {_REASONS[error.status]}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        if error.status == 407:
            lines.append('Proxy-Authenticate: Basic realm="pbcluster"')
        transport = cast(ITransport, self.transport)
        transport.write("\r\n".join([*lines, "", ""]).encode() + body)
        self.wait(HEAD_TIMEOUT_S)
        transport.loseConnection()

    def _pause(self) -> None:
        cast(IPushProducer, self.transport).pauseProducing()

    def _resume(self) -> None:
        cast(IPushProducer, self.transport).resumeProducing()

    def forward(self, data: bytes) -> None:
        """The server sent something."""
        self.wait(IDLE_TIMEOUT_S)
        cast(ITransport, self.transport).write(data)

    def finish(self) -> None:
        """The server closed: send what is left, then close."""
        if not self._gone:
            transport = cast(Any, self.transport)
            transport.unregisterProducer()
            transport.loseConnection()

    def abort(self) -> None:
        """Cut it off."""
        cast(Any, self.transport).abortConnection()


class _Server(Protocol):
    """The connection that a tenant asked for."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._gone = False

    def dataReceived(self, data: bytes) -> None:
        self._client.forward(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._gone = True
        self._client.finish()

    def send(self, data: bytes) -> None:
        """Hand on what the tenant sent."""
        cast(ITransport, self.transport).write(data)

    def finish(self) -> None:
        """The tenant closed: send what is left, then close."""
        if not self._gone:
            transport = cast(Any, self.transport)
            transport.unregisterProducer()
            transport.loseConnection()
