"""Names, requests, signatures and deletions, without S3."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.files import documents
from pbcluster.node.files.deletions import Deletion, Ledger, covered_epoch, covered_name, read_name
from pbcluster.node.files.errors import S3Error
from pbcluster.node.files.names import TenantNames, decode_key, split_path, upstream_path
from pbcluster.node.files.requests import Operation, understand
from pbcluster.node.files.signatures import verify
from pbcluster.web.interfaces import RequestHead

#: A request as PocketBase 0.40.6 sent it, with the secret "s3cr3t".
TARGET = b"/storage/pbc_1985629191/yzoeksrdb3kwhje/b_c_15ssk7qt9q.txt"
MADE_AT = datetime(2026, 11, 26, 1, 39, 39, tzinfo=UTC)
FIELDS = (
    (b"Host", b"127.0.0.1:18931"),
    (b"User-Agent", b"Go-http-client/1.1"),
    (b"Content-Length", b"50"),
    (b"Accept-Encoding", b"identity"),
    (
        b"Authorization",
        b"AWS4-HMAC-SHA256 Credential=tenant_abc/20261126/us-east-1/s3/aws4_request, "
        b"SignedHeaders=content-type;host;x-amz-content-sha256;x-amz-date;"
        b"x-amz-meta-original-filename, "
        b"Signature=8fef77abc64af4aa312544ce1e2e974a08083e5b1f4878109b45a37e466c2539",
    ),
    (b"Content-Type", b"text/plain; charset=utf-8"),
    (b"X-Amz-Content-Sha256", b"UNSIGNED-PAYLOAD"),
    (b"X-Amz-Date", b"20261126T013939Z"),
    (b"X-Amz-Meta-Original-Filename", b"%C3%A4%20b+c.txt"),
)


def head(
    fields: tuple[tuple[bytes, bytes], ...] = FIELDS,
    method: bytes = b"PUT",
    target: bytes = TARGET,
) -> RequestHead:
    return RequestHead(method, target, b"127.0.0.1", fields, 50, False, "127.0.0.1")


def changed(name: bytes, value: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
    kept = tuple(field for field in FIELDS if field[0] != name)
    return kept if value is None else (*kept, (name, value))


def secret_of(access_key: str) -> str | None:
    return "s3cr3t" if access_key == "tenant_abc" else None


class SignatureTests(SynchronousTestCase):
    def refused(self, request: RequestHead, now: datetime = MADE_AT) -> str:
        with self.assertRaises(S3Error) as caught:
            verify(request, secret_of, now)
        return caught.exception.code

    def test_pocketbases_own(self) -> None:
        """A request of PocketBase's is understood as its tenant's."""
        signed = verify(head(), secret_of, MADE_AT)
        self.assertEqual((signed.access_key, signed.payload), ("tenant_abc", "UNSIGNED-PAYLOAD"))

    def test_any_change_is_seen(self) -> None:
        """Another method, target, query, host, type, metadata or key breaks the signature."""
        wrong = "SignatureDoesNotMatch"
        self.assertEqual(self.refused(head(method=b"GET")), wrong)
        self.assertEqual(self.refused(head(target=TARGET + b"x")), wrong)
        self.assertEqual(self.refused(head(target=TARGET + b"?uploads")), wrong)
        for name in (b"Host", b"Content-Type", b"X-Amz-Meta-Original-Filename"):
            self.assertEqual(self.refused(head(changed(name, b"other"))), wrong)
        other = FIELDS[4][1].replace(b"tenant_abc", b"tenant_abd")
        self.assertEqual(self.refused(head(changed(b"Authorization", other))), wrong)

    def test_what_is_not_signed_properly(self) -> None:
        """Missing, doubled, unsigned or old fields, and other forms of signing, are refused."""
        denied = "AccessDenied"
        self.assertEqual(self.refused(head(changed(b"Authorization", None))), denied)
        self.assertEqual(self.refused(head(changed(b"Authorization", b"Basic x"))), denied)
        self.assertEqual(self.refused(head(changed(b"X-Amz-Date", None))), denied)
        self.assertEqual(self.refused(head(changed(b"X-Amz-Content-Sha256", b"?"))), denied)
        for extra in ((b"x-amz-copy-source", b"storage/x"), FIELDS[4], FIELDS[7]):
            self.assertEqual(self.refused(head((*FIELDS, extra))), denied)
        chunks = b"STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
        request = head(changed(b"X-Amz-Content-Sha256", chunks))
        self.assertEqual(self.refused(request), "NotImplemented")
        query = head(changed(b"Authorization", None), target=TARGET + b"?X-Amz-Signature=1")
        self.assertEqual(self.refused(query), "NotImplemented")
        for minutes in (-16, 16):
            late = MADE_AT + timedelta(minutes=minutes)
            self.assertEqual(self.refused(head(), late), "RequestTimeTooSkewed")


class NameTests(SynchronousTestCase):
    def test_refused_names(self) -> None:
        """What could be taken for another name, by us or by S3, is no key."""
        for raw in (
            b"a/../b", b"..", b".", b"a/.", b"a/%2e%2e/b", b"%2E%2E/x", b"a//b", b"/a", b"a/",
            b"a%2fb", b"a%2Fb", b"a%5cb", b"a\\b", b"a%00b", b"a%0ab", b"a%7f", b"%ff", b"%c0%ae",
            b"a%", b"a%zz", b"x" * 601, b"%ef%bf%be",
        ):  # fmt: skip
            with self.assertRaises(S3Error, msg=raw):
                decode_key(raw)
        for path in (b"/other/x", b"//storage/x", b"storage/x", b"/", b"/Storage/x"):
            with self.assertRaises(S3Error, msg=path):
                split_path(path)

    @given(st.binary(max_size=60))
    def test_every_key_stays_below_its_prefix(self, raw: bytes) -> None:
        """Whatever is accepted lies below the tenant's prefix, as S3 reads it too."""
        try:
            key = decode_key(raw)
        except S3Error:
            return
        full = TenantNames("tenants/t/").full("storage", key)
        path = upstream_path("bucket", full)
        self.assertTrue(path.startswith("/bucket/tenants/t/storage/"))
        self.assertFalse({"", ".", ".."} & set(path[1:].split("/")))
        self.assertEqual(decode_key(path.removeprefix("/bucket/").encode()), full)


class RequestTests(SynchronousTestCase):
    def test_operations(self) -> None:
        """Each request of PocketBase's is known."""
        for method, target, source, wanted in (
            (b"GET", b"/storage/a/b", None, Operation.GET),
            (b"HEAD", b"/backups/x.zip", None, Operation.HEAD),
            (b"PUT", b"/storage/a/b?x-id=PutObject", None, Operation.PUT),
            (b"PUT", b"/storage/a/b", b"/storage/a/c", Operation.COPY),
            (b"DELETE", b"/storage/a/b", None, Operation.DELETE),
            (b"GET", b"/storage/?list-type=2&prefix=a%2F", None, Operation.LIST),
            (b"POST", b"/storage/a?uploads", None, Operation.CREATE_UPLOAD),
            (b"PUT", b"/storage/a?partNumber=1&uploadId=U", None, Operation.PUT_PART),
            (b"POST", b"/storage/a?uploadId=U", None, Operation.COMPLETE_UPLOAD),
            (b"DELETE", b"/storage/a?uploadId=U", None, Operation.ABORT_UPLOAD),
            (b"GET", b"/storage/a?uploadId=U", None, Operation.LIST_PARTS),
        ):
            self.assertIs(understand(method, target, source).operation, wanted, target)

    def test_refused(self) -> None:
        """Other parameters, twice the same, other methods, are refused and never ignored."""
        for method, target, source in (
            (b"GET", b"/storage/a?acl", None),
            (b"GET", b"/storage/a?versionId=1", None),
            (b"DELETE", b"/storage/", None),
            (b"POST", b"/storage/?delete", None),
            (b"GET", b"/storage/?location", None),
            (b"GET", b"/storage/?list-type=2&prefix=../", None),
            (b"GET", b"/storage/?list-type=2&prefix=a&prefix=b", None),
            (b"GET", b"/storage/?list-type=2&max-keys=-1", None),
            (b"GET", b"/storage/?list-type=2&delimiter=x", None),
            (b"PUT", b"/storage/a?partNumber=0&uploadId=U", None),
            (b"PUT", b"/storage/a?partNumber=10001&uploadId=U", None),
            (b"PUT", b"/storage/a?partNumber=1&uploadId=U", b"storage/b"),
            (b"PUT", b"/storage/a?partNumber=1&uploadId=a%26acl", None),
            (b"PUT", b"/storage/a", b"storage/b?versionId=1/../x"),
            (b"PUT", b"/storage/a", b"other/b"),
            (b"PUT", b"/storage/a", b"storage/"),
            (b"PATCH", b"/storage/a", None),
        ):
            with self.assertRaises(S3Error, msg=target):
                understand(method, target, source)

    def test_list_of_parts(self) -> None:
        """Parts must be in order, and the document may declare nothing."""
        part = "<Part><PartNumber>{}</PartNumber><ETag>&#34;e&#34;</ETag></Part>"

        def body(*numbers: int) -> bytes:
            parts = "".join(part.format(number) for number in numbers)
            return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()

        self.assertEqual(documents.read_complete(body(1, 3)), [(1, '"e"'), (3, '"e"')])
        for bad in (
            body(), body(2, 1), body(1, 1), body(10001), b"<a>", b"", b"\xff",
            b'<!DOCTYPE a [<!ENTITY e "x">]>' + body(1),
        ):  # fmt: skip
            with self.assertRaises(S3Error, msg=bad):
                documents.read_complete(bad)


def deletion(epoch: int, number: int, key: str = "storage/k", at_ms: int = 1000) -> Deletion:
    return Deletion(epoch=epoch, number=number, at_ms=at_ms, size=5, identity="0" * 16, key=key)


class DeletionTests(SynchronousTestCase):
    @given(st.text(min_size=1, max_size=200), st.integers(1, 10**12), st.integers(0, 10**12))
    def test_a_name_says_everything(self, key: str, epoch: int, at_ms: int) -> None:
        """A record is read back from its name, whatever its key; no piece is over 255 bytes."""
        try:
            key.encode()
        except UnicodeEncodeError:
            return
        made = deletion(epoch, 7, key, at_ms)
        self.assertEqual(read_name(made.name), made)
        self.assertLess(max(len(piece) for piece in made.name.split("/")), 255)

    def test_names_of_others(self) -> None:
        """What is no record is none."""
        for name in ("", "x", covered_name(3), "0" * 20 + "/1.2.3.4/eA==", "../x"):
            self.assertIsNone(read_name(name))
        self.assertEqual(covered_epoch(covered_name(3)), 3)

    def test_what_stands(self) -> None:
        """To a later epoch what was covered stands and the rest is void; of its own epoch all
        stands; of an epoch above its own it judges nothing."""
        found = [deletion(e, n, f"storage/{e}-{n}") for e in (1, 2, 3, 4) for n in (1, 2)]
        ledger = Ledger(3, found, {1: 1, 4: 2})
        standing = sorted(each.key for each in ledger)
        self.assertEqual(standing, ["storage/1-1", "storage/3-1", "storage/3-2"])
        void = sorted(each.key for each in ledger.take_void(10))
        self.assertEqual(void, ["storage/1-2", "storage/2-1", "storage/2-2"])
        self.assertTrue(ledger.uncovered)
        self.assertEqual(ledger.begin("k", identity="", size=0, at_ms=0).number, 3)

    def test_what_is_due(self) -> None:
        """Only what is covered and older than the window; nothing that was cancelled."""
        ledger = Ledger(2, [deletion(1, 1, "storage/a")], {1: 1})
        made = ledger.begin("storage/b", identity="1" * 16, size=3, at_ms=1000)
        self.assertFalse(ledger.hidden("storage/b"))
        ledger.recorded(made)
        self.assertEqual(ledger.waiting_bytes, 8)
        due = lambda now: [each.key for each in ledger.due(now, 100, 10)]  # noqa: E731
        self.assertEqual(due(1099), [])
        self.assertEqual(due(1100), ["storage/a"])
        ledger.covered(made.number)
        self.assertEqual(due(1100), ["storage/a", "storage/b"])
        self.assertTrue(ledger.contested("storage/a", 1100, 100))
        self.assertFalse(ledger.contested("storage/b", 1100, 100))
        ledger.gone(made)
        ledger.gone(made)
        self.assertEqual((due(1100), ledger.waiting_bytes), (["storage/a"], 5))
        self.assertFalse(ledger.hidden("storage/b"))
