"""Passes a request of the admin API on to the leader, so that any member takes any request.

The whole request goes on (method, path, query, body, authorisation, idempotency key) with a mark,
and what carries the mark is answered where it is, so that two members that take each other for the
leader pass nothing to and fro. The answer comes back as it is. One attempt: whoever asked repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import treq
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.error import ConnectError, ConnectingCancelledError, ConnectionClosed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web._newclient import RequestNotSent
from twisted.web.client import (
    Agent,
    BrowserLikePolicyForHTTPS,
    HTTPConnectionPool,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.server import Request

from pbcluster.errors import DeadlineExceeded, NotLeader, TooLarge
from pbcluster.raft import MemberId

#: Names the member that passed a request on.
MARK = b"x-pbcluster-passed-on-by"
#: As long as a creation may wait for its tenant, and some.
TIMEOUT_S = 70.0
CONNECT_TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 16 * 1024**2
_HEADERS = ("authorization", "content-type", "idempotency-key", "accept", "if-match")
_BACK = ("content-type", "cache-control", "retry-after", "www-authenticate", "etag")
#: The connection ended while the request or its answer was on the way.
_BROKEN = (
    RequestTransmissionFailed,
    ResponseFailed,
    ConnectionClosed,
    CancelledError,
    TimeoutError,
    OSError,
)

log = Logger()


@attrs.frozen
class PassedOn:
    """The leader's answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Forwarder:
    """Knows where the other members' admin APIs are."""

    def __init__(
        self,
        reactor: Any,
        own_id: MemberId,
        url_of: Callable[[MemberId], str | None],
        trusted: Any = None,
    ) -> None:
        """
        :param trusted: a trust root for their certificates; None: the system's.
        :param url_of: gives the base URL of another member's admin API, None if it is not known.
        """
        self._reactor: IReactorTime = reactor
        self._own_id = own_id
        self._url_of = url_of
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        # A connection that the leader closed meanwhile must not decide about a request: those that
        # change something are never repeated here.
        self._pool.retryAutomatically = False
        self._pool.cachedConnectionTimeout = 10
        agent = Agent(
            reactor,
            BrowserLikePolicyForHTTPS(trusted),
            connectTimeout=CONNECT_TIMEOUT_S,
            pool=self._pool,
        )
        self._client = treq.client.HTTPClient(agent)

    @staticmethod
    def is_marked(request: Request) -> bool:
        """Whether another member passed this request on."""
        return request.getHeader(MARK) is not None

    async def pass_on(
        self, request: Request, leader: MemberId, body: bytes, further: Mapping[str, str] = {}
    ) -> PassedOn:
        """Ask the leader.

        :param leader: its id, perhaps empty.
        :param further: headers that go along.
        :raises NotLeader: it is unknown, or cannot be reached: nothing was done.
        :raises DeadlineExceeded: the connection ended first: whether it was done is unknown.
        """
        url = self._url_of(leader) if leader not in ("", self._own_id) else None
        if url is None:
            told = (
                f"{leader} leads; where its admin API is, is not known here: ask it directly"
                if leader not in ("", self._own_id)
                else "there is no leader at the moment"
            )
            raise NotLeader(told, leader=leader, retry_after_s=0.2)
        headers = {name: value for name in _HEADERS if (value := request.getHeader(name))}
        headers |= further
        headers[MARK.decode()] = self._own_id
        # The target as it came: its path and query were not decoded.
        target = request.uri.decode("latin-1")
        target = target if target.startswith("/") else "/"
        unknown = f"{leader} did not answer: whether it was done is unknown"
        try:
            response = await self._client.request(
                request.method.decode("latin-1"),
                url + target,
                headers=headers,
                data=body,
                timeout=TIMEOUT_S,
                allow_redirects=False,
                reactor=self._reactor,
            )
            parts: list[bytes] = []
            await treq.collect(response, _bounded(parts))
        except (ConnectError, ConnectingCancelledError, RequestNotSent) as error:
            told = f"{leader} leads but cannot be reached: {error}"
            raise NotLeader(told, leader=leader, retry_after_s=0.2) from None
        except _BROKEN as error:
            log.info("passing on to {leader}: {error}", leader=leader, error=error)
            raise DeadlineExceeded(unknown) from None
        back = {
            name: value
            for name in _BACK
            if (value := (response.headers.getRawHeaders(name) or [""])[0])
        }
        return PassedOn(response.code, back, b"".join(parts))

    async def close(self) -> None:
        """End idle connections."""
        await self._pool.closeCachedConnections()


def _bounded(parts: list[bytes]) -> Any:
    size = 0

    def collect(data: bytes) -> None:
        nonlocal size
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            raise TooLarge("the leader's answer is too long")
        parts.append(data)

    return collect
