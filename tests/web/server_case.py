"""Test cases with a server, clients and upstreams in memory, and what they all use."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.web.corpus import get
from tests.web.memory import Side, Web

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


class WebCase(SynchronousTestCase):
    def web(self, *args: object, **kwargs: object) -> Web:
        web = Web(*args, **kwargs)
        self.addCleanup(web.assert_nothing_left, self)
        return web


class ForwardCase(WebCase):
    def forwarded(
        self, raw: bytes = get(), web: Web | None = None, **plan: Any
    ) -> tuple[Web, Side, Side]:
        """A request whose forward is connected: (web, client, upstream)."""
        web = web or self.web(**plan)
        client = web.client()
        client.send(raw)
        return web, client, web.upstreams.accept()
