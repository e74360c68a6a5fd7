"""The metrics listener of a gateway with workers: the pages of ``local_pages``, for all of them.

Each page asks the living workers at their own loopback listeners, all at once, and waits at most
``ASK_S``; a worker that does not answer is left out, and ``pbcluster_gateway_worker_up`` shows it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import treq
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from pbcluster.gateway import merged

ASK_S = 2.0
#: A worker's metrics are some ten KiB, 500 routes some hundred.
MAX_PAGE_BYTES = 8 * 1024 * 1024
TIMEOUT_S = 30

log = Logger()

#: Status, content type, body.
Answer = tuple[int, bytes, bytes]
#: Gives the answers of the living workers to a path.
Ask = Callable[[str], Deferred[dict[int, str]]]


class Asker:
    """Asks the workers."""

    def __init__(self, agent: Any, addresses: Callable[[], Mapping[int, str]]) -> None:
        """
        :param agent: a ``treq`` client. :param addresses: worker → base URL of its pages.
        """
        self._client = agent
        self._addresses = addresses

    def __call__(self, path: str) -> Deferred[dict[int, str]]:
        """The bodies of all that answer within ``ASK_S``; never fails."""
        found: dict[int, str] = {}
        asked = [
            Deferred.fromCoroutine(self._one(number, address + path, found)).addErrback(_silent)
            for number, address in self._addresses().items()
        ]
        return gatherResults(asked).addCallback(lambda _: found)

    async def _one(self, number: int, url: str, found: dict[int, str]) -> None:
        answer = await self._client.get(url, timeout=ASK_S)
        parts: list[bytes] = []
        size = 0

        def collect(data: bytes) -> None:
            nonlocal size
            size += len(data)
            if size <= MAX_PAGE_BYTES:
                parts.append(data)

        await treq.collect(answer, collect)
        found[number] = b"".join(parts).decode("utf-8", "replace")


def _silent(failure: Failure) -> None:
    log.debug("a worker does not answer: {why}", why=failure.getErrorMessage())


class _Page(Resource):
    isLeaf = True

    def __init__(self, path: str, ask: Ask, answer: Callable[[dict[int, str]], Answer]) -> None:
        super().__init__()
        self._path = path
        self._ask = ask
        self._answer = answer

    def render_GET(self, request: Request) -> int:
        gone: list[bool] = []
        request.notifyFinish().addErrback(lambda _: gone.append(True))

        def answered(pages: dict[int, str]) -> None:
            if gone:
                return
            status, content_type, body = self._answer(pages)
            request.setResponseCode(status)
            request.setHeader(b"content-type", content_type)
            request.setHeader(b"cache-control", b"no-store")
            request.write(body)
            request.finish()

        def failed(failure: Failure) -> None:
            log.failure("a page of all workers failed", failure=failure)
            if not gone:
                request.setResponseCode(500)
                request.finish()

        self._ask(self._path).addCallback(answered).addErrback(failed)
        return NOT_DONE_YET


class _QuietSite(Site):
    displayTracebacks = False
    noisy = False

    def log(self, request: Any) -> None:
        """Nothing: scrapes are no news."""


def _json(status: int, value: Any) -> Answer:
    return status, b"application/json", json.dumps(value, indent=1).encode() + b"\n"


def _shown(merge: Callable[[dict[int, str]], Any], pages: dict[int, str]) -> Answer:
    return _json(200, merge(pages))


def site(ask: Ask, registry: CollectorRegistry, workers: int, stopping: Callable[[], bool]) -> Site:
    """The site.

    :param registry: what the master counts itself.
    :param stopping: whether the gateway is being stopped.
    """

    def ready(pages: dict[int, str]) -> Answer:
        reasons = ["it is being stopped"] if stopping() else merged.not_ready(pages, workers)
        return _json(503 if reasons else 200, {"ready": not reasons, "reasons": reasons})

    def figures(pages: dict[int, str]) -> Answer:
        body = generate_latest(registry) + merged.metrics(pages)
        return 200, CONTENT_TYPE_LATEST.encode(), body

    def nobody(_: str) -> Deferred[dict[int, str]]:
        nothing: Deferred[dict[int, str]] = Deferred()
        nothing.callback({})
        return nothing

    root, debug = Resource(), Resource()
    root.putChild(b"livez", _Page("", nobody, lambda _: _json(200, {"status": "ok"})))
    root.putChild(b"healthz", _Page("", nobody, lambda _: _json(200, {"status": "ok"})))
    root.putChild(b"readyz", _Page("/readyz", ask, ready))
    root.putChild(b"metrics", _Page("/metrics", ask, figures))
    root.putChild(b"debug", debug)
    for name, merge in ((b"breakers", merged.breakers), (b"routes", merged.routes)):
        path = f"/debug/{name.decode()}"
        debug.putChild(name, _Page(path, ask, functools.partial(_shown, merge)))
    return _QuietSite(root, timeout=TIMEOUT_S)
