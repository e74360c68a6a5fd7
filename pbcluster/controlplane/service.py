"""A member as a Twisted service: starts its parts in order, ends them in the reverse.

Order: recover the registry, then bind the sockets, then plan. So nothing is answered from a state
that is not whole, and a store that fails its check stops the process before it says a word.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from inspect import signature
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTCP
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from pbcluster import ready_file
from pbcluster.config import MemberConfig, Secrets
from pbcluster.controlplane import status_pages
from pbcluster.controlplane.admin_api import AdminAPI
from pbcluster.controlplane.admin_guard import MAX_BODY_BYTES
from pbcluster.controlplane.admin_json import error_body
from pbcluster.controlplane.executor import Executor, utc_now
from pbcluster.controlplane.group import (
    authority_in,
    forwarder,
    join_group,
)
from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.member_keys import MemberKeys
from pbcluster.controlplane.membership import Membership
from pbcluster.controlplane.migrating import Migrating
from pbcluster.controlplane.moves import Moves
from pbcluster.controlplane.planner import Planner
from pbcluster.controlplane.raft_member import RaftMember
from pbcluster.controlplane.requests import Requests
from pbcluster.controlplane.steady_clock import SteadyClock
from pbcluster.durations import Durations
from pbcluster.ending import end_process
from pbcluster.errors import ConfigError, PBClusterError, TooLarge
from pbcluster.options import Parsed
from pbcluster.records import MemberRecord
from pbcluster.rereading import Rereading
from pbcluster.transport.broadcasts import ZmqPublisher
from pbcluster.transport.curve import REMOVED, ROLES
from pbcluster.transport.request_server import ZmqRequestServer
from pbcluster.transport.sockets import Sockets
from pbcluster.web.tls.endpoint import TLSDirectoryEndpoint

#: A request line and its headers; bodies are bounded by the API itself.
ADMIN_TIMEOUT_S = 75
log = Logger()


class MemberService(Service):
    """One control-plane member."""

    name = "pbcluster member"

    def __init__(
        self,
        reactor: Any,
        config: MemberConfig,
        secrets: Secrets,
        sockets: Sockets,
        again: Callable[[], Parsed[MemberConfig]],
    ):
        """
        :param reactor: TCP, time, threads and descriptors; what the tap obtained.
        :param again: reads secrets and peers again.
        """
        self._reactor = reactor
        self._config = config
        self._keys = MemberKeys(config, secrets, sockets)
        self._rereading = Rereading(again, self._keys.use)
        self._sockets = sockets
        self._durations = Durations()
        #: Once it has started.
        self._consensus: RaftMember | None = None
        self._membership: Membership | None = None
        self._executor: Executor | None = None
        self._migrating: Migrating | None = None
        roles = (*ROLES, REMOVED)
        self._server = ZmqRequestServer(sockets, config.request_endpoint, roles=roles)
        self._publisher = ZmqPublisher(sockets, config.broadcast_endpoint)
        self._admin: IListeningPort | None = None
        self._status: IListeningPort | None = None
        self._stopping = False

    def startService(self) -> None:
        """Start; what cannot be started ends the process with one sentence."""
        super().startService()
        ready_file.remove(self._config.data_dir)
        # Not before the reactor runs: nothing here has to wait, and whoever reads that this member
        # serves may send SIGTERM at once, which ends the process at once while nobody handles it.
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if not self._stopping:
            started = Deferred.fromCoroutine(self._start())
            started.addErrback(self._cannot_start)

    def _cannot_start(self, failure: Any) -> None:
        if failure.check(PBClusterError):
            self._end(str(failure.value))
        else:
            log.failure("the member cannot start", failure)
            self._end(f"internal error: {failure.value}")

    def _end(self, reason: str) -> None:
        end_process(self._reactor, "pbcp", reason)

    async def _start(self) -> None:
        self._durations.check()
        config = self._config
        clock = SteadyClock(self._reactor)
        consensus = join_group(self._reactor, clock, config, self._sockets, self._end)
        await consensus.start()
        self._consensus = consensus
        liveness = Liveness(self._durations, clock.seconds())
        planner = Planner(
            lambda: consensus.registry, liveness, node_down_after_s=config.node_down_after_s
        )
        self._executor = Executor(
            clock,
            consensus,
            liveness,
            planner,
            self._server,
            self._publisher,
            self._durations,
        )
        moves = Moves(lambda: consensus.registry, liveness, planner)
        migrating = self._migrating = Migrating(
            clock, consensus, liveness, moves, self._executor, self._server
        )
        requests = Requests(
            clock, consensus, liveness, planner, self._executor, migrating=migrating
        )
        membership = self._membership = Membership(clock, consensus, utc_now)
        figures = status_pages.Figures()
        figures.watch(self._rereading.figures)
        api = AdminAPI(
            clock,
            consensus,
            liveness,
            planner,
            self._executor,
            requests,
            self._keys.auth(lambda: consensus.registry.api_tokens),
            lambda function, *args: deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), function, *args
            ),
            group=membership,
            cluster_id=config.cluster_id,
            forwarder=forwarder(self._reactor, config, consensus),
            counts=self._counts,
            migrating=migrating,
            mark=self._keys.mark,
            answered=figures.answered,
            deleted_keep_s=config.deleted_keep_s,
            authority=authority_in(config.authority),
        )
        self._status = listen_at(
            self._reactor,
            config.metrics_listen,
            status_pages.site(
                figures, consensus, liveness, planner.storm, self._counts, lambda: self._stopping
            ),
            "metrics-listen",
        )
        self._admin = await self._listen_admin(api)
        _bound("broadcast-endpoint", self._publisher.start)
        _bound("request-endpoint", lambda: self._server.start(requests))
        self._executor.start()
        migrating.start()
        self._keys.start(membership, self._own_record(consensus))
        # The registry and all code are here to stay: no collection need walk through them again.
        gc.collect()
        gc.freeze()
        self._tell_ready()

    async def _listen_admin(self, api: AdminAPI) -> IListeningPort:
        """:raises ConfigError: the port cannot be had, or the certificates cannot be read."""
        config = self._config
        if config.admin_tls is None:
            return listen(self._reactor, config.admin_listen, api, "admin-listen")
        secure = TLSDirectoryEndpoint(self._reactor, config.admin_listen, config.admin_tls)
        return await secure.listen(site_of(api))

    def _own_record(self, consensus: RaftMember) -> MemberRecord:
        """Where this member is reached, with the ports that it really has."""
        return MemberRecord(
            self._config.id,
            consensus.endpoint,
            self._server.endpoint,
            self._publisher.endpoint,
            self._admin_url(),
            self._sockets.own_key,
        )

    def _counts(self) -> dict[str, dict[str, int]]:
        """What each kind of socket dropped, and how many connections were refused."""
        member = self._consensus
        return {
            "raft": {} if member is None else member.counts(),
            "requests": self._server.counts(),
            "connections": self._sockets.counts(),
        }

    def _tell_ready(self) -> None:
        if self._stopping:
            return
        admin = self._admin_url()
        ready_file.write(
            self._config.data_dir,
            admin=admin,
            request=self._server.endpoint,
            broadcast=self._publisher.endpoint,
            metrics=_url(self._status, self._config.metrics_listen[0]),
        )
        log.info("member {id} serves; admin API at {admin}", id=self._config.id, admin=admin)

    def _admin_url(self) -> str:
        url = _url(self._admin, self._config.admin_listen[0])
        return url if self._config.admin_tls is None else url.replace("http:", "https:", 1)

    def reload(self) -> None:
        """Read secrets and peers again, and use them."""
        self._rereading.reload()

    async def _stop(self) -> None:
        if self._membership is not None:
            self._membership.stop()
        if self._consensus is not None:
            await self._consensus.hand_over()
        if self._migrating is not None:
            self._migrating.stop()
        if self._executor is not None:
            self._executor.stop()
        for port in (self._admin, self._status):
            if port is not None:
                await maybeDeferred(port.stopListening)
        self._server.stop()
        self._publisher.stop()
        if self._consensus is not None:
            await self._consensus.stop()
        self._sockets.close()

    def stopService(self) -> Deferred[None]:
        """Stop; fires when everything is closed."""
        super().stopService()
        self._stopping = True
        ready_file.leave(self._config.data_dir)
        return Deferred.fromCoroutine(self._stop())


class BoundedRequest(Request):
    """A request whose body is refused before it is read, once it is known to be too long."""

    _read_bytes = 0
    _refused = False

    def gotLength(self, length: int | None) -> None:
        """The length of the body by its header, None if it comes in chunks."""
        super().gotLength(length)
        self._bound(length or 0)

    def handleContentChunk(self, data: bytes) -> None:
        """A piece of the body."""
        self._read_bytes += len(data)
        if self._bound(self._read_bytes):
            super().handleContentChunk(data)

    def _bound(self, size_bytes: int) -> bool:
        if size_bytes <= MAX_BODY_BYTES:
            return True
        transport = self.channel.transport
        if transport is not None and not self._refused:
            self._refused = True
            error = TooLarge(f"a body may have at most {MAX_BODY_BYTES} bytes")
            _refuse(transport, error.status, b"Content Too Large", error_body(error))
            self.channel.loseConnection()
        return False


class _Channel(HTTPChannel):
    """A connection on which a line that is too long is answered before it is closed."""

    def lineLengthExceeded(self, line: bytes) -> None:
        """The request's target, or a header, is over :attr:`MAX_LENGTH` bytes."""
        target = line.partition(b" ")[0].isupper()
        status, word = (414, b"URI Too Long") if target else (431, b"Header Field Too Large")
        what = "the request's target" if target else "a header"
        told = {"status": status, "message": f"{what} has more than {self.MAX_LENGTH} bytes"}
        _refuse(self.transport, status, word, told | {"data": {}})
        self.loseConnection()


def _refuse(transport: Any, status: int, word: bytes, told: dict[str, Any]) -> None:
    """Answer what is no whole request; the connection is to be closed then."""
    body = json.dumps(told).encode() + b"\n"
    head = (
        b"HTTP/1.1 %d %s\r\nServer: pbcluster\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )
    transport.write(head % (status, word, len(body)) + body)


class _QuietSite(Site):
    """A site without an access log: the API writes its own, which holds no query."""

    displayTracebacks = False
    noisy = False

    def log(self, request: Any) -> None:
        """Nothing."""


def _bound(option: str, start: Callable[[], None]) -> None:
    """:raises ConfigError: names the option too."""
    try:
        start()
    except ConfigError as error:
        raise ConfigError(f"{error} (--{option})") from None


def listen(
    reactor: IReactorTCP, address: tuple[str, int], api: AdminAPI, option: str
) -> IListeningPort:
    """Serve the admin API.

    :raises ConfigError: the port cannot be had; names it and the option.
    """
    return listen_at(reactor, address, site_of(api), option)


def site_of(api: AdminAPI) -> Site:
    """The admin API as a site, which bounds the bodies of its requests."""
    # Bodies are JSON; to find out that one is no form costs more than to parse it.
    takes = signature(Site.__init__).parameters
    no_forms = {name: False for name in ("parsePOSTFormSubmission",) if name in takes}
    site = _QuietSite(api.resource(), timeout=ADMIN_TIMEOUT_S, **no_forms)
    site.requestFactory = BoundedRequest
    cast(Any, site).protocol = _Channel
    return site


def _url(port: IListeningPort | None, host: str) -> str:
    assert port is not None
    number = cast(IPv4Address | IPv6Address, port.getHost()).port
    return f"http://{f'[{host}]' if ':' in host else host}:{number}"


def listen_at(
    reactor: IReactorTCP, address: tuple[str, int], site: Site, option: str
) -> IListeningPort:
    """Serve a site.

    :raises ConfigError: the port cannot be had; names it and the option.
    """
    host, port = address
    try:
        return reactor.listenTCP(port, cast(Any, site), interface=host)
    except CannotListenError as error:
        raise ConfigError(
            f"cannot listen at {host}:{port} (--{option}): {error.socketError.strerror}"
        ) from None
