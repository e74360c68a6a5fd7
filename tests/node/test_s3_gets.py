"""GETs of small objects: every answer becomes the right word, and the signature is S3's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from pbcluster.errors import S3Unavailable, StorageCorrupt
from pbcluster.node import s3_gets
from pbcluster.node.s3 import S3Refused
from pbcluster.s3_client import MAX_OBJECT_BYTES, S3Address
from tests.web import pki
from tests.web.memory import Upstreams

ADDRESS = S3Address(
    endpoint="http://192.0.2.1:8333", bucket="bucket", access_key="AKID", secret_key="hidden-word"
)


def answer(status: int, body: bytes, more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n" % (status, more, len(body))
    return head + body


def fault(code: str) -> bytes:
    text = f"<Error xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Code>{code}</Code></Error>"
    return text.encode()


class Gets(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.upstreams = Upstreams(self.clock)
        self.patch(s3_gets, "tcp_endpoints", lambda reactor: self.upstreams)
        self.gets = s3_gets.S3Gets(self.clock, ADDRESS)

    def answered(self, answer: bytes) -> tuple[Deferred[Any], bytes]:
        """What came of a GET that is answered so, and the request."""
        asked: Deferred[Any] = Deferred.fromCoroutine(self.gets.get("tenants/t 1/owner.json"))
        far = self.upstreams.accept()
        request = far.got()
        far.send(answer)
        return asked, request

    def test_an_object(self) -> None:
        """Content and ETag come back; the request names bucket and key, and is signed."""
        asked, request = self.answered(answer(200, b"{}", b'ETag: "abc"\r\n'))
        self.assertEqual(self.successResultOf(asked), s3_gets.Stored(b"{}", '"abc"'))
        self.assertTrue(request.startswith(b"GET /bucket/tenants/t%201/owner.json HTTP/1.1\r\n"))
        self.assertIn(b"Host: 192.0.2.1:8333\r\n", request)
        self.assertIn(b"Credential=AKID/", request)
        self.assertNotIn(b"hidden-word", request)

    def test_no_object(self) -> None:
        """There is none: that is an answer, not a fault."""
        asked, _ = self.answered(answer(404, fault("NoSuchKey")))
        self.assertIsNone(self.successResultOf(asked))

    def test_other_answers(self) -> None:
        """A missing bucket and faults leave it unknown, wrong keys are refused."""
        for told, wanted, word in (
            (answer(404, fault("NoSuchBucket")), S3Unavailable, "bucket does not exist"),
            (answer(500, fault("InternalError")), S3Unavailable, "500 InternalError"),
            (answer(503, b"not XML at all"), S3Unavailable, "503"),
            (answer(403, fault("AccessDenied")), S3Refused, "check the S3 keys"),
            (b"nonsense\r\n\r\n", S3Unavailable, "did not answer"),
        ):
            self.setUp()
            asked, _ = self.answered(told)
            self.assertIn(word, str(self.failureResultOf(asked, wanted).value))

    def test_no_answer(self) -> None:
        """A connection that ends leaves it unknown."""
        asked = Deferred.fromCoroutine(self.gets.get("k"))
        self.upstreams.accept().close()
        self.failureResultOf(asked, S3Unavailable)

    def test_too_large(self) -> None:
        """An object that is larger than anything of ours is not taken for one of ours."""
        asked, _ = self.answered(answer(200, b"x" * (MAX_OBJECT_BYTES + 1)))
        self.failureResultOf(asked, StorageCorrupt)

    def test_no_secret_in_its_repr(self) -> None:
        """Its repr shows neither key."""
        self.assertNotIn("hidden-word", repr(self.gets))
        self.assertNotIn("AKID", repr(self.gets))


class _Canned(Protocol):
    def dataReceived(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            assert self.transport is not None
            self.transport.write(answer(200, b"{}", b'ETag: "tls"\r\n'))


class OverTLS(TestCase):
    async def asked(self, name: str) -> Any:
        """What a GET gives at an S3 whose certificate is for ``name``, asked as localhost."""
        place = Path(self.mktemp())
        pair = pki.site(name)
        pki.write(place / "ca.pem", pki.issuer().certificate)
        pki.write(place / "site.pem", pair.certificate)
        pki.write(place / "key.pem", pair.key)
        where = f"ssl:0:interface=127.0.0.1:privateKey={place}/key.pem:certKey={place}/site.pem"
        port = await serverFromString(reactor, where).listen(Factory.forProtocol(_Canned))
        endpoint = f"https://localhost:{port.getHost().port}"
        address = S3Address(endpoint=endpoint, bucket="b", access_key="A", secret_key="s")
        with mock.patch.dict(os.environ, {"SSL_CERT_FILE": str(place / "ca.pem")}):
            gets = s3_gets.S3Gets(reactor, address)
            try:
                return await gets.get("key")
            finally:
                gets.close()
                await port.stopListening()

    async def test_a_trusted_certificate(self) -> None:
        """An https endpoint is asked over TLS, verified against the system's authorities."""
        found = await self.asked("localhost")
        self.assertEqual(found, s3_gets.Stored(b"{}", '"tls"'))

    async def test_another_ones_certificate(self) -> None:
        """A certificate for another name is no S3 of ours: nothing is read from it."""
        with self.assertRaises(S3Unavailable):
            await self.asked("elsewhere.example")
