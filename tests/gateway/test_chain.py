"""Bad input against gateway and node in a row, and what an attacker would try on the two."""

from __future__ import annotations

import json

from pbcluster import signing
from pbcluster.testing.http_corpus import REQUESTS, RequestCase, get, line, post
from pbcluster.testing.http_memory import OK, Seen, answers_of
from pbcluster.testing.http_reference import Message, read_request
from pbcluster.testing.http_wire import Far
from tests.gateway.chain import ADDED, HOST, PEER, Chain, ChainCase
from tests.web.test_corpus import plain


def host_of(message: Message) -> str:
    """The host name that a request of the corpus is for."""
    host = message.values(b"host")[0].decode("latin-1").lower()
    return (
        host.rpartition(":")[0].rstrip(".")
        if host[-1:].isdigit() and ":" in host
        else host.rstrip(".")
    )


def without_added(messages: list[Message]) -> list[Message]:
    """The same without what the platform adds."""
    return [
        Message(each.line, tuple(f for f in each.fields if f[0].lower() not in ADDED), each.body)
        for each in messages
    ]


class CorpusTests(ChainCase):
    def seen(self, chain: Chain, case: RequestCase) -> Seen:
        client = chain.ask(case.raw)
        requests = tuple(chain.requests)
        methods = [message.line[0] for message in case.sent]
        answers = answers_of(client.received, methods, client.ended == "closed")
        seen = Seen(tuple(answers), 0, requests, client.ended, False, client.received)
        chain.forget(client)
        return seen

    def test_each_case(self) -> None:
        """What is refused, the gateway refuses: neither node nor PocketBase sees a byte. What
        passes is one request for PocketBase, with our fields in it exactly once and as we say."""
        chain = self.chain()
        passed = 0
        for case in REQUESTS:
            ours = all(host_of(message) == HOST for message in case.sent)
            before = chain.gateway.pool.made
            seen = self.seen(chain, case)
            statuses = tuple(answer.status for answer in seen.answers)
            self.assertEqual(seen.fate, "closed" if case.closed else "", case.name)
            if case.refused or not ours:
                self.assertEqual(chain.gateway.pool.made, before, case.name)
                self.assertEqual(seen.requests, (), case.name)
                self.assertEqual(statuses, case.statuses if case.refused else (404,), case.name)
                json.loads(seen.answers[0].body)
                continue
            passed += len(seen.requests)
            self.assertEqual(statuses, case.statuses, case.name)
            got = without_added(list(seen.requests))
            self.assertEqual(plain(got), plain(case.sent), case.name)
            for message in seen.requests:
                for name in ADDED:
                    self.assertEqual(len(message.values(name)), 1, (case.name, name))
                self.assertEqual(message.values(b"x-forwarded-for"), [PEER])
                self.assertEqual(message.values(b"x-real-ip"), [PEER])
                self.assertEqual(message.values(b"x-forwarded-host"), message.values(b"host"))
        self.assertGreater(passed, 140)


class FakedFieldTests(ChainCase):
    def sent_up(self, *lines: bytes) -> Message:
        """What PocketBase gets of a GET with these fields."""
        chain = self.chain()
        client = chain.ask(get(*lines))
        (message,) = chain.requests
        chain.forget(client)
        return message

    def test_fields_of_the_platform(self) -> None:
        """No spelling of a platform field reaches PocketBase, nor disturbs the signature."""
        for name in (
            b"X-PBCluster-Tenant",
            b"x-pbcluster-tenant",
            b"X-PBCLUSTER-SIGNATURE",
            b"X-PBCluster-Signed",
            b"X-PBCluster-Anything",
            b"X-PBCluster-",
            b"X_PBCluster_Tenant",
            b"X-PBCluster_Tenant",
            b"X-PBCluster-Not-Processed",
            b"X-Tenant-ID",
            b"X_Tenant_ID",
        ):
            message = self.sent_up(name + b": evil")
            self.assertNotIn(b"evil", b"".join(value for _, value in message.fields), name)

    def test_forwarding_fields(self) -> None:
        """Nothing under X-Forwarded-, nor Forwarded, nor X-Real-IP is what a client says."""
        for name in (
            b"X-Forwarded-For",
            b"x-forwarded-for",
            b"X-Forwarded-Proto",
            b"X-Forwarded-Host",
            b"X-Forwarded-Port",
            b"X-Forwarded-Server",
            b"X-Forwarded-Prefix",
            b"X-Forwarded-Ssl",
            b"X-Forwarded-Scheme",
            b"X-Forwarded-User",
            b"X-Forwarded",
            b"X_Forwarded_For",
            b"X-Real-IP",
            b"X_Real_IP",
            b"X-Request-ID",
            b"Forwarded",
        ):
            message = self.sent_up(name + b": evil", name + b": evil")
            self.assertNotIn(b"evil", b"".join(value for _, value in message.fields), name)

    def test_connection_cannot_take_ours_away(self) -> None:
        """A client that names our fields in Connection removes none of them, on either hop."""
        ours = [b"X-Forwarded-For", b"X-Real-IP", b"X-Request-ID", b"traceparent", b"Host"]
        ours += [signing.PREFIX + name for name in (b"signed", b"signature", b"tenant", b"epoch")]
        message = self.sent_up(b"Connection: " + b", ".join(ours))
        self.assertEqual(message.values(b"x-forwarded-for"), [PEER])
        self.assertEqual(message.values(b"x-real-ip"), [PEER])
        self.assertEqual(message.values(b"host"), [HOST.encode()])
        message = self.sent_up(*(b"Connection: " + name for name in ours))
        self.assertEqual(message.values(b"x-forwarded-for"), [PEER])

    def test_a_trailer_is_no_field(self) -> None:
        """Platform fields in a trailer are dropped with it."""
        chain = self.chain()
        body = b"1\r\nx\r\n0\r\nX-PBCluster-Tenant: evil\r\nX-Forwarded-For: evil\r\n\r\n"
        client = chain.ask(post(b"Transfer-Encoding: chunked", b"TE: trailers", body=body))
        (message,) = chain.requests
        self.assertEqual(message.body, b"x")
        self.assertNotIn(b"evil", b"".join(far.received for far in chain.node.upstreams))
        self.assertNotIn(b"evil", b"".join(far.received for far in chain.gateway.upstreams))
        chain.forget(client)

    def test_a_body_cannot_become_fields(self) -> None:
        """A body that reads like the gateway's own signed request stays a body on both hops."""
        evil = line(b"GET /evil HTTP/1.1").replace(
            b"\r\n\r\n", b"\r\nX-PBCluster-Tenant: t\r\n\r\n"
        )
        chain = self.chain()
        raw = post(b"Content-Length: %d" % len(evil), body=evil)
        client = chain.ask(raw[:-20], raw[-20:] + get())
        self.assertEqual([m.line[1] for m in chain.requests], [b"/", b"/"])
        self.assertEqual(chain.requests[0].body, evil)
        chain.forget(client)


class TenantAnswerTests(ChainCase):
    """A tenant's hook answers: it must not speak for the platform, nor to other requests."""

    def answered(self, raw: bytes, request: bytes = get()) -> tuple[list[Message], str]:
        """What the client gets when PocketBase says ``raw``."""
        chain = self.chain(lambda message: raw)
        client = chain.ask(request)
        fate = client.ended
        found = [] if fate == "aborted" else answers_of(client.received, [], fate == "closed")
        chain.forget(client)
        return found, fate

    def test_marks(self) -> None:
        """Marks of the platform in a tenant's answer go: no retry, no breaker, no false epoch."""
        for mark in (b"moved", b"loading", b"no-proof", b"unsigned"):
            raw = (
                b"HTTP/1.1 503 X\r\nX-PBCluster-Not-Processed: " + mark + b"\r\n"
                b"X-PBCluster-Node-Epoch: 99\r\nx-pbcluster-durability: evil\r\n"
                b"Content-Length: 1\r\n\r\nx"
            )
            chain = self.chain(lambda message, raw=raw: raw)
            client = chain.ask(get())
            self.assertEqual(len(chain.requests), 1)
            (answer,) = answers_of(client.received, [], False)
            self.assertEqual(answer.status, 503)
            self.assertNotIn(b"pbcluster", client.received.lower())
            chain.forget(client)

    def test_splitting(self) -> None:
        """A line end smuggled into a field by a hook is a 502, never a second field or answer."""
        for evil in (
            b"a\nSet-Cookie: evil",
            b"a\rSet-Cookie: evil",
            b"a\r\n\nHTTP/1.1 200 OK\r\n\r\nevil",
            b"a\x00evil",
            b"a\r\n evil",
        ):
            raw = b"HTTP/1.1 200 OK\r\nLocation: " + evil + b"\r\nContent-Length: 0\r\n\r\n"
            found, _ = self.answered(raw)
            self.assertEqual([each.status for each in found], [502], evil)
            self.assertNotIn(b"evil", found[0].body)

    def test_connection_options_of_a_hook(self) -> None:
        """A hook's Connection removes its own fields only: none of ours, and no framing."""
        raw = (
            b"HTTP/1.1 200 OK\r\nConnection: Content-Length, X-Request-ID, Date, Content-Type\r\n"
            b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
        )
        (answer,), _ = self.answered(raw)
        self.assertEqual(answer.body, b"ok")
        self.assertEqual(len(answer.values(b"x-request-id")), 1)
        self.assertEqual(answer.values(b"content-type"), [b"text/plain"])

    def test_a_second_answer(self) -> None:
        """An answer behind the answer reaches nobody, at once or later; its connection ends."""
        for late in (False, True):
            chain = self.chain(lambda message: b"")
            client = chain.ask(get())
            (pocketbase,) = chain.node.upstreams
            evil = OK.replace(b"ok", b"no")
            pocketbase.send(OK if late else OK + evil)
            chain.wire.run()
            if late:
                pocketbase.send(evil)
                chain.wire.run()
            self.assertEqual(pocketbase.ended, "aborted")
            client.send(line(b"GET /next HTTP/1.1"))
            chain.wire.run()
            self.assertEqual(len(chain.node.upstreams), 2)
            self.assertEqual([m.line[1] for m in chain.requests], [b"/", b"/next"])
            chain.node.upstreams[1].send(OK)
            chain.wire.run()
            self.assertNotIn(b"no", client.received.partition(b"\r\n\r\n")[2].lower())
            chain.forget(client)


class RaceTests(ChainCase):
    """Requests and answers that cross: what one client left unsaid begins nobody's request."""

    def whole(self, far: Far) -> list[bytes]:
        """Targets of the whole requests in what ``far`` received."""
        found, data = [], far.received
        while data and (read := read_request(data)) is not None:
            found.append(read[0].line[1])
            data = read[1]
        return found

    def test_an_early_answer_to_an_upload(self) -> None:
        """An upstream that answers an upload before its end is not used again, on either hop: what
        is left of the body cannot become the next request."""
        chain = self.chain(lambda message: b"", pocketbase=Far)
        smuggled = line(b"GET /smuggled HTTP/1.1")
        client = chain.ask(post(b"Content-Length: 500000", body=b"x"))
        (pocketbase,) = chain.node.upstreams
        pocketbase.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        chain.wire.run()
        (answer,) = answers_of(client.received, [], True)
        self.assertEqual((answer.status, client.ended), (401, "closed"))
        self.assertEqual(pocketbase.ended, "aborted")
        self.assertEqual([far.ended for far in chain.gateway.upstreams], ["aborted"])
        client.send(smuggled)
        victim = chain.ask(line(b"GET /victim HTTP/1.1"))
        self.assertEqual(self.whole(chain.node.upstreams[-1]), [b"/victim"])
        self.assertNotIn(b"smuggled", b"".join(far.received for far in chain.node.upstreams))
        chain.forget(client)
        chain.forget(victim)

    def test_a_small_unread_body(self) -> None:
        """The same with a body so small that the client's connection is kept: its rest is read as
        body, and what comes behind it is the next request."""
        chain = self.chain(pocketbase=Far)
        smuggled = line(b"GET /smuggled HTTP/1.1")
        client = chain.ask(post(b"Content-Length: %d" % (len(smuggled) + 1), body=b"x"))
        (pocketbase,) = chain.node.upstreams
        pocketbase.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        chain.wire.run()
        self.assertEqual((client.ended, pocketbase.ended), ("", "aborted"))
        client.send(smuggled + line(b"GET /next HTTP/1.1"))
        chain.wire.run()
        self.assertEqual(self.whole(chain.node.upstreams[-1]), [b"/next"])
        self.assertNotIn(b"smuggled", b"".join(far.received for far in chain.node.upstreams))
        chain.forget(client)

    def test_an_expectation_refused(self) -> None:
        """After a final answer instead of 100 nobody knows whether the body comes: every connection
        ends, so that a body sent all the same begins no request."""
        chain = self.chain(pocketbase=Far)
        smuggled = line(b"GET /smuggled HTTP/1.1")
        raw = post(b"Expect: 100-continue", b"Content-Length: %d" % len(smuggled))
        client = chain.ask(raw)
        (pocketbase,) = chain.node.upstreams
        self.assertIn(b"Expect: 100-continue", pocketbase.received)
        pocketbase.send(OK)
        chain.wire.run()
        self.assertEqual((client.ended, pocketbase.ended), ("closed", "aborted"))
        client.send(smuggled)
        victim = chain.ask(line(b"GET /victim HTTP/1.1"))
        self.assertEqual(self.whole(chain.node.upstreams[-1]), [b"/victim"])
        self.assertNotIn(b"smuggled", b"".join(far.received for far in chain.node.upstreams))
        chain.forget(client)
        chain.forget(victim)

    def test_an_expectation_that_crosses(self) -> None:
        """The client sends the body without waiting, the final answer crosses it, then a 100 comes
        late: the body is body, the late 100 is no answer, the next request is the next request."""
        chain = self.chain(pocketbase=Far)
        smuggled = line(b"GET /smuggled HTTP/1.1")
        client = chain.ask(post(b"Expect: 100-continue", b"Content-Length: %d" % len(smuggled)))
        (pocketbase,) = chain.node.upstreams
        client.send(smuggled)
        pocketbase.send(OK + b"HTTP/1.1 100 Continue\r\n\r\n")
        chain.wire.run()
        self.assertEqual((pocketbase.ended, client.ended), ("aborted", ""))
        client.send(line(b"GET /next HTTP/1.1"))
        chain.wire.run()
        self.assertEqual(self.whole(chain.node.upstreams[-1]), [b"/next"])
        (answer,) = answers_of(client.received, [b"POST"], ended=False)
        self.assertEqual((answer.status, answer.body), (200, b"ok"))
        chain.forget(client)

    def test_a_100_without_a_wait(self) -> None:
        """A 100 that the client did not ask for never reaches it, so that none of its answers is
        taken for the next request's."""
        chain = self.chain(pocketbase=Far)
        client = chain.ask(post(b"Content-Length: 2", body=b"hi"))
        (pocketbase,) = chain.node.upstreams
        pocketbase.send(b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + OK)
        chain.wire.run()
        self.assertEqual(client.received.count(b"HTTP/1.1 "), 1)
        chain.forget(client)

    def test_nobody_gets_anothers_answer(self) -> None:
        """Clients whose requests wait on the same node get each their own answer, also if one of
        them goes away in between."""
        chain = self.chain(pocketbase=Far)
        one = chain.ask(line(b"GET /one HTTP/1.1"))
        two = chain.ask(line(b"GET /two HTTP/1.1"))
        one.close()
        chain.wire.run()
        three = chain.ask(line(b"GET /three HTTP/1.1"))
        for far in chain.node.upstreams:
            for target in self.whole(far):
                if not far.ended:
                    far.send(
                        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(target), target)
                    )
        chain.wire.run()
        self.assertTrue(two.received.endswith(b"/two"))
        self.assertTrue(three.received.endswith(b"/three"))
        self.assertEqual(one.received, b"")
        for client in (one, two, three):
            chain.forget(client)


class CachePoisonTests(ChainCase):
    def test_errors_are_not_to_be_cached(self) -> None:
        """No error of ours may stay in a cache: method tricks, long and odd fields, unknown hosts
        would else take a page away from everybody."""
        chain = self.chain()
        for raw in (
            line(b"TRACE / HTTP/1.1"),
            line(b"BREW / HTTP/1.1"),
            get(b"A: " + b"x" * 17_000),
            get(b"A: \x01"),
            line(b"GET /" + b"x" * 9000 + b" HTTP/1.1"),
            get(b"Expect: x"),
            get(host=b"Host: nobody.localhost"),
            get(host=b"Host: 192.0.2.1"),
        ):
            client = chain.ask(raw)
            (answer,) = answers_of(client.received, [], client.ended == "closed")
            self.assertGreaterEqual(answer.status, 400)
            self.assertEqual(answer.values(b"cache-control"), [b"no-store"], raw[:40])
            self.assertNotIn(b"evil", answer.body)
            chain.forget(client)

    def test_a_host_in_disguise(self) -> None:
        """However a request names its host, the tenant is told the one by which it was found."""
        chain = self.chain()
        for raw in (
            line(b"GET http://a.localhost/x HTTP/1.1"),
            get(b"X-Forwarded-Host: evil.localhost", b"X-Host: evil.localhost"),
            get(b"Forwarded: host=evil.localhost"),
            line(b"GET //evil.localhost/x HTTP/1.1"),
        ):
            client = chain.ask(raw)
            message = chain.requests[-1]
            self.assertEqual(message.values(b"host"), [HOST.encode()])
            self.assertEqual(message.values(b"x-forwarded-host"), [HOST.encode()])
            self.assertEqual(message.values(b"forwarded"), [])
            chain.forget(client)
