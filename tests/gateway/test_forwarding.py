from twisted.trial.unittest import SynchronousTestCase

from pbcluster import signing
from pbcluster.errors import Unavailable
from pbcluster.gateway.forwarding import (
    MAX_REMEMBERED,
    Forwarder,
    NodeTLS,
    epoch_of,
    mark_of,
    node_at,
    seen_of,
    to_client,
)
from pbcluster.web.answers import encoded_head
from pbcluster.web.interfaces import Headers, Memo, RequestHead
from pbcluster.wire import Route
from tests.gateway.fakes import KEY, answer, fields_of, head, marked, route
from tests.web.heads import changed

ID = "0123456789abcdef0123456789abcdef"
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def to_node(request: RequestHead, to: Route | None = None) -> list[tuple[bytes, bytes]]:
    lines = Forwarder("gateway_1", KEY).lines(request, to or route(epoch=7), ID, 1_000)
    assert lines.endswith(b"\r\n")
    return [
        (name, value) for name, _, value in (x.partition(b": ") for x in lines.split(b"\r\n")[:-1])
    ]


def sent(*headers: tuple[bytes, bytes]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in to_node(head(headers=headers)):
        found.setdefault(name.lower(), []).append(value)
    return found


class ToNodeTests(SynchronousTestCase):
    def test_signature(self) -> None:
        """The node can verify tenant, epoch and request id, and a changed target fails."""
        request = head(method=b"POST", target=b"/api?x=1")
        fields = to_node(request)
        signed = signing.verify(
            {"gateway_1": KEY}, b"POST", b"/api?x=1", signing.found_in(fields), 2_000
        )
        told = (signed.gateway, signed.tenant_id, signed.epoch, signed.at_ms, signed.request_id)
        self.assertEqual(told, ("gateway_1", route().tenant_id, 7, 1_000, ID))

    def test_overwritten(self) -> None:
        """What a client says of itself or in the platform's name is replaced or removed."""
        lies: Headers = [
            (b"X-Forwarded-For", b"10.0.0.1"),
            (b"x-forwarded-proto", b"https"),
            (b"X-Forwarded-Host", b"evil"),
            (b"X-Forwarded-Port", b"1"),
            (b"Forwarded", b"for=10.0.0.1"),
            (b"X-Real-IP", b"10.0.0.1"),
            (b"X-Request-ID", b"mine"),
            (b"X-Tenant-ID", b"other"),
            (b"X-PBCluster-Tenant", b"other"),
            (b"x-pbcluster-anything", b"1"),
        ]
        found = sent(*lies)
        expected = {
            b"x-forwarded-for": [b"192.0.2.7"],
            b"x-real-ip": [b"192.0.2.7"],
            b"x-forwarded-proto": [b"http"],
            b"x-forwarded-host": [b"shop.localhost:8080"],
            b"host": [b"shop.localhost:8080"],
        }
        for name, values in expected.items():
            self.assertEqual(found[name], values, name)
        for name in (
            b"x-forwarded-port",
            b"forwarded",
            b"x-tenant-id",
            b"x-request-id",
            *(n.lower() for n, _ in lies if b"PBC" in n.upper()),
        ):
            self.assertNotIn(name, found)

    def test_connection_cannot_remove_ours(self) -> None:
        """A client that names our fields in Connection removes only its own."""
        found = sent(
            (b"Connection", b"X-Real-IP, X-PBCluster-Signed, x-custom, keep-alive"),
            (b"X-Custom", b"1"),
            (b"Keep-Alive", b"9"),
            (b"Upgrade", b"h2c"),
            (b"TE", b"trailers"),
        )
        self.assertEqual(found[b"x-real-ip"], [b"192.0.2.7"])
        self.assertIn(b"x-pbcluster-signed", found)
        for name in (b"x-custom", b"keep-alive", b"upgrade", b"te", b"connection"):
            self.assertNotIn(name, found)

    def test_passed_on(self) -> None:
        """Everything else arrives as it was, in order and doubled if it was."""
        found = sent((b"Cookie", b"a=1"), (b"cookie", b"b=2"), (b"Authorization", b"t"))
        self.assertEqual((found[b"cookie"], found[b"authorization"]), ([b"a=1", b"b=2"], [b"t"]))

    def test_traceparent(self) -> None:
        """A valid trace is kept, any other dropped: the node makes one."""
        bad = (b"", b"00-zz", TRACE.upper(), b"00-" + b"0" * 32 + TRACE[35:], b"ff" + TRACE[2:])
        self.assertEqual(sent((b"Traceparent", TRACE))[b"traceparent"], [TRACE])
        for given in bad:
            self.assertNotIn(b"traceparent", sent((b"traceparent", given)))

    def test_the_same_field_lines(self) -> None:
        """Requests that share their field lines differ in what does not come from these: target,
        route, peer and whether they came by TLS."""
        first = changed(head(headers=[(b"Cookie", b"a=1")]), memo=Memo())
        one = dict(to_node(first))
        self.assertEqual(dict(to_node(first)), one)
        other = changed(first, target=b"/other", peer_host="192.0.2.8", secure=True)
        two = dict(to_node(other, route(epoch=8)))
        self.assertEqual(two[b"Cookie"], b"a=1")
        self.assertEqual((two[b"X-Real-IP"], two[b"X-Forwarded-Proto"]), (b"192.0.2.8", b"https"))
        verified = signing.verify(
            {"gateway_1": KEY}, b"GET", b"/other", signing.found_in(list(two.items())), 1_000
        )
        self.assertEqual(verified.epoch, 8)


class ToClientTests(SynchronousTestCase):
    def test_marks_are_removed(self) -> None:
        """No mark of a node reaches a client but how durable a write is; the request id is ours."""
        given = answer(
            200,
            (b"X-PBCluster-Node-Epoch", b"3"),
            (b"x-pbcluster-durability", b"local"),
            (b"X-Request-Id", b"of pocketbase"),
            (b"Content-Type", b"a/b"),
        )
        passed = to_client(seen_of(given), ID)
        self.assertEqual(
            passed.headers,
            [
                (b"x-pbcluster-durability", b"local"),
                (b"Content-Type", b"a/b"),
            ],
        )
        self.assertEqual(passed.lines, b"X-Request-ID: " + ID.encode() + b"\r\n")

    def test_answers_with_the_same_head(self) -> None:
        """They share all but the request id."""
        one = answer(200, (b"Content-Type", b"a/b"))
        seen = seen_of(one)
        first, second = to_client(seen, ID), to_client(seen, ID[::-1])
        self.assertIs(encoded_head(first), encoded_head(second))
        self.assertNotEqual(first.lines, second.lines)

    def test_marks_are_read(self) -> None:
        """The reason and the epoch of a refusal; an epoch that is no number is none."""
        refused = marked(b"moved", 421, 17)
        self.assertEqual((mark_of(refused), epoch_of(refused)), (b"moved", 17))
        self.assertIsNone(mark_of(answer()))
        for text in (b"", b"-1", b"1e9", b"9" * 19):
            self.assertEqual(epoch_of(answer(421, (signing.NODE_EPOCH, text))), 0)

    def test_hsts(self) -> None:
        """With a value of the gateway's own there is one Strict-Transport-Security, that one;
        without it a tenant's own passes."""
        theirs = (b"strict-transport-security", b"max-age=1")
        self.assertIn(theirs, to_client(seen_of(answer(200, theirs)), ID).headers)
        for fields in ([theirs], []):
            made = to_client(seen_of(answer(200, *fields)), ID, b"max-age=9")
            self.assertEqual(made.headers, [])
            self.assertIn(b"Strict-Transport-Security: max-age=9\r\n", made.lines)


class AddressTests(SynchronousTestCase):
    def test_table(self) -> None:
        """Base URLs of nodes, and what is refused."""
        for address, expected in {
            "http://127.0.0.1:8090": ("127.0.0.1", 8090),
            "http://[::1]:9": ("::1", 9),
            "http://10.0.0.1": ("10.0.0.1", 80),
        }.items():
            self.assertEqual(node_at(address, "node_a"), (*expected, ""))
        for address in ("https://10.0.0.1", "10.0.0.1:80", "", "http://:80", "http://h:99999"):
            self.assertRaises(Unavailable, node_at, address, "node_a")

    def test_tls(self) -> None:
        """A node at an https address must prove its id; a gateway that demands TLS speaks to no
        other, one without a certificate not to these."""
        name = "node_a.nodes.pbcluster.internal"
        for tls in (NodeTLS.ALLOWED, NodeTLS.REQUIRED):
            found = node_at("https://10.0.0.1:8090", "node_a", tls)
            self.assertEqual(found, ("10.0.0.1", 8090, name))
        self.assertEqual(node_at("http://10.0.0.1", "node_a", NodeTLS.ALLOWED)[2], "")
        with self.assertRaisesRegex(Unavailable, "does not speak TLS, which this gateway demands"):
            node_at("http://10.0.0.1", "node_a", NodeTLS.REQUIRED)
        with self.assertRaisesRegex(Unavailable, "this gateway has no certificate"):
            node_at("https://10.0.0.1", "node_a", NodeTLS.OFF)

    def test_remembered(self) -> None:
        """An address that another node took over is that node's: its own name must be proven.
        What is remembered is bounded."""
        forwarder = Forwarder("gateway_1", KEY, NodeTLS.ALLOWED)
        for node_id in ("node_a", "node_b", "node_a", "node_a"):
            at = route(address="https://10.0.0.1:8090", node_id=node_id)
            name = f"{node_id}.nodes.pbcluster.internal"
            self.assertEqual(forwarder.place(at), ("10.0.0.1", 8090, name))
        for number in range(MAX_REMEMBERED + 10):
            host = f"10.1.{number // 256}.{number % 256}"
            place = forwarder.place(route(address=f"http://{host}"))
            self.assertEqual(place, (host, 80, ""))
            lines = forwarder.lines(changed(head(), peer_host=host), route(), ID, 1_000)
            self.assertEqual(dict(fields_of(lines))[b"X-Real-IP"], host.encode())
        self.assertLessEqual(len(forwarder._places), MAX_REMEMBERED)
        self.assertLessEqual(len(forwarder._plain_peers), MAX_REMEMBERED)
