"""Upstream connections: kept within bounds, dropped in time, never trusted blindly."""

from __future__ import annotations

import socket

from pbcluster.web.interfaces import Outcome
from pbcluster.web.pool import UpstreamPool
from tests.web.corpus import get, post
from tests.web.server_case import OK, ForwardCase


class Pool(ForwardCase):
    def test_reuse_can_be_declined(self) -> None:
        """A plan without reuse makes a connection of its own, though one is idle."""
        web, client, upstream = self.forwarded(reuse=False)
        upstream.send(OK)
        client.send(get())
        self.assertEqual(len(web.upstreams.connecting), 1)

    def test_idle_connections_end(self) -> None:
        """An idle connection is dropped after its time, when its upstream closes or speaks."""
        for end in (
            lambda web, upstream: web.clock.advance(30),
            lambda web, upstream: upstream.close(),
            lambda web, upstream: upstream.send(b"HTTP/1.1 408 Timeout\r\n\r\n"),
            lambda web, upstream: web.pool.drop("192.0.2.7", 80),
        ):
            web, client, upstream = self.forwarded()
            upstream.send(OK)
            self.assertEqual(web.pool.idle_count, 1)
            end(web, upstream)
            web.settle()
            self.assertEqual(web.pool.idle_count, 0)
            client.send(get())
            self.assertEqual(len(web.upstreams.connecting), 1)

    def test_bounded(self) -> None:
        """No more idle connections are kept than allowed, for one upstream and for all."""
        for bounds in ({"max_idle_per_upstream": 2}, {"max_idle": 2}):
            web = self.web()
            web.pool = UpstreamPool(web.clock, web.upstreams, **bounds)
            web.factory.pool = web.pool
            sides = [self.forwarded(web=web)[2] for _ in range(3)]
            for upstream in sides:
                upstream.send(OK)
            self.assertEqual(web.pool.idle_count, 2)
            self.assertEqual([side.aborted for side in sides], [False, False, True])

    def test_not_reusable(self) -> None:
        """Connection: close and HTTP/1.0 upstreams are not used again."""
        for raw in (
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        ):
            web, client, upstream = self.forwarded()
            upstream.send(raw)
            self.assertNotIn(b"Connection", client.got())
            self.assertEqual(web.pool.idle_count, 0)

    def test_stale_with_a_get(self) -> None:
        """A GET whose reused connection ends without a byte is sent again, once, silently."""
        web, client, upstream = self.forwarded()
        upstream.send(OK)
        client.got()
        client.send(get())
        upstream.close()
        self.assertEqual(len(web.attempts), 1)
        fresh = web.upstreams.accept()
        self.assertTrue(fresh.got().startswith(b"GET / "))
        fresh.close()
        self.assertEqual(web.attempts[1].outcome, Outcome.NO_RESPONSE)
        self.assertFalse(web.attempts[1].reused)

    def test_stale_with_a_post(self) -> None:
        """A POST on a connection that ends under it is never sent twice by the core."""
        web, client, upstream = self.forwarded()
        upstream.send(OK)
        client.got()
        client.send(post(b"Content-Length: 1", body=b"x"))
        upstream.close()
        self.assertEqual(web.upstreams.connecting, [])
        self.assertEqual(web.attempts[1].outcome, Outcome.NO_RESPONSE)
        self.assertEqual((web.attempts[1].reused, web.attempts[1].junk), (True, False))

    def test_an_end_that_nobody_told_of(self) -> None:
        """A request that may not be sent twice looks first whether a pooled connection ended, which
        the reactor did not tell yet; a read goes out at once, and is repeated if it must be."""
        for request, looks in ((post(b"Content-Length: 1", body=b"x"), True), (get(), False)):
            web, client, upstream = self.forwarded()
            upstream.send(OK)
            client.got()
            ours, theirs = socket.socketpair()
            self.addCleanup(ours.close)
            upstream.transport.getHandle = lambda ours=ours: ours
            theirs.close()
            upstream.got()
            client.send(request)
            self.assertEqual(upstream.got() == b"", looks, request)
            self.assertEqual(len(web.upstreams.connecting), int(looks))
            self.assertEqual(upstream.aborted, looks)

    def test_a_connection_that_stands(self) -> None:
        """A request that may not be sent twice uses a pooled connection on which nothing waits."""
        web, client, upstream = self.forwarded()
        upstream.send(OK)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        upstream.transport.getHandle = lambda: ours
        upstream.got()
        client.send(post(b"Content-Length: 1", body=b"x"))
        self.assertTrue(upstream.got().startswith(b"POST / "))
        self.assertEqual(web.upstreams.connecting, [])

    def test_junk_is_not_stale(self) -> None:
        """Bytes that are no answer, on a reused connection, are told apart from its mere end."""
        web, client, upstream = self.forwarded()
        upstream.send(OK)
        client.got()
        client.send(get())
        upstream.send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        attempt = web.attempts[1]
        self.assertEqual((attempt.outcome, attempt.junk), (Outcome.NO_RESPONSE, True))
