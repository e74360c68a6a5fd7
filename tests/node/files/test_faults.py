"""The file gateway when S3, the tenant or the network misbehaves; and files found on the disk."""

from __future__ import annotations

import http.server
import json
import os
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import (
    ConnectionClosedError,
    IncompleteReadError,
    ResponseStreamingError,
)
from twisted.internet.threads import deferToThread

from pbcluster.node.files import transfers
from pbcluster.node.files.adoption import DONE
from pbcluster.node.files.deletions import Ledger
from pbcluster.node.files.door import Files
from pbcluster.node.files.signatures import file_secret
from tests.node.files.case import TENANT_KEY, A, FilesCase, Owner
from tests.web import pki

MIB = 1024 * 1024
KEY = {"Bucket": "storage", "Key": "k"}


class BadS3(http.server.ThreadingHTTPServer):
    """An S3 that answers listings with nothing, and GET and PUT of objects as it is told.

    :ivar answer: what it does with the connection. :ivar sent: bytes of content that left.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer: Callable[[_Handler], None] = lambda handler: handler.say(500)
        self.sent = 0
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the other side went away, as it should

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BadS3

    def do(self) -> None:
        if "list-type" in self.path:
            self.say(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        elif "uploads" in self.path:
            self.say(200, b"<ListMultipartUploadsResult></ListMultipartUploadsResult>")
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.server.answer(self)

    do_GET = do_PUT = do_HEAD = do_DELETE = do

    def say(self, status: int, body: bytes = b"<x>the real S3's own words</x>") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Amz-Bucket-Region", "secret-region")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class BadS3Tests(FilesCase):
    def setUp(self) -> None:
        super().setUp()
        self.bad = BadS3()
        self.addCleanup(self.bad.end)
        host, port = self.bad.server_address[:2]
        self.where = attrs.evolve(
            self.seaweed.address(self.bucket), endpoint=f"http://{host!s}:{port}"
        )

    async def test_what_s3_answers(self) -> None:
        """Whatever S3 says, the tenant is told what it means and nothing else; what is S3's or the
        operator's fault is 503 with a Retry-After."""
        client = await self.client(self.files(address=self.where), Owner())
        for status, wanted in (
            (403, (503, "ServiceUnavailable")),
            (500, (503, "ServiceUnavailable")),
            (503, (503, "ServiceUnavailable")),
            (301, (503, "ServiceUnavailable")),
            (404, (404, "NoSuchKey")),
            (412, (412, "PreconditionFailed")),
        ):
            self.bad.answer = lambda handler, status=status: handler.say(status)
            for call, more in ((client.get_object, {}), (client.put_object, {"Body": b"1"})):
                try:
                    await self.do(call, **KEY, **more)
                    self.fail("it was not refused")
                except Exception as error:
                    answer = error.response  # type: ignore[attr-defined]
                self.assertEqual(answer["Error"]["Code"], wanted[1], status)
                told = answer["ResponseMetadata"]
                self.assertEqual(told["HTTPStatusCode"], wanted[0])
                self.assertEqual("retry-after" in told["HTTPHeaders"], wanted[0] == 503)
                self.assertNotIn("own words", str(answer))
                self.assertNotIn("secret-region", str(answer))

    async def test_half_an_object(self) -> None:
        """An answer that breaks off does not look whole."""
        client = await self.client(self.files(address=self.where), Owner())

        def half(handler: _Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            handler.wfile.write(b"x" * 500)
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)

        self.bad.answer = half

        def read() -> bytes:
            body: bytes = client.get_object(**KEY)["Body"].read()
            return body

        with self.assertRaises(
            (IncompleteReadError, ConnectionClosedError, ResponseStreamingError)
        ):
            await deferToThread(read)

    async def test_s3_says_nothing(self) -> None:
        """A silent S3 costs the tenant a bounded wait; one that is not there, next to none."""
        self.patch(transfers, "FIRST_BYTE_TIMEOUT_S", 0.5)
        client = await self.client(self.files(address=self.where), Owner())
        over = threading.Event()
        self.addCleanup(over.set)
        self.bad.answer = lambda handler: over.wait(20) and None
        refused = await self.refusal(client.get_object, **KEY)
        self.assertEqual(refused, (503, "ServiceUnavailable"))
        over.set()
        self.bad.end()
        began = time.monotonic()
        refused = await self.refusal(client.put_object, **KEY, Body=b"1")
        self.assertEqual(refused, (503, "ServiceUnavailable"))
        self.assertLess(time.monotonic() - began, 5.0)

    async def test_slow_reader(self) -> None:
        """What a tenant does not read is not fetched: the node holds next to nothing of it."""
        client = await self.client(self.files(address=self.where), Owner())
        stopped = threading.Event()

        def endless(handler: _Handler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(400 * MIB))
            handler.end_headers()
            handler.connection.settimeout(1.0)
            try:
                for _ in range(400):
                    handler.connection.sendall(b"x" * MIB)
                    self.bad.sent += MIB
            except OSError:
                stopped.set()
            handler.close_connection = True

        self.bad.answer = endless
        got = await self.do(client.get_object, **KEY)
        await self.do(got["Body"].read, amt=MIB)
        await deferToThread(stopped.wait, 20)
        self.assertLess(self.bad.sent, 40 * MIB)
        got["Body"].close()


class SecureS3Tests(FilesCase):
    async def test_over_tls(self) -> None:
        """Content reaches an S3 behind https whose name is vouched for; one that is not the named
        one gets nothing."""
        root = Path(self.mktemp()).absolute()
        pki.write(root / "ca.pem", pki.issuer().certificate)
        # OpenSSL reads the process's own environment.
        os.environ["SSL_CERT_FILE"] = str(root / "ca.pem")
        self.addCleanup(os.environ.pop, "SSL_CERT_FILE")
        for site, wanted in (("localhost", 200), ("other.example", 503)):
            bad = BadS3()
            self.addCleanup(bad.end)
            made = pki.site(site)
            pki.write(root / "chain.pem", made.certificate)
            pki.write(root / "key.pem", made.key)
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(root / "chain.pem", root / "key.pem")
            bad.socket = context.wrap_socket(bad.socket, server_side=True)
            bad.answer = lambda handler: handler.say(200, b"content")
            endpoint = f"https://localhost:{bad.server_address[1]}"
            where = attrs.evolve(self.seaweed.address(self.bucket), endpoint=endpoint)
            files = self.files(address=where)
            client = await self.client(files, Owner())
            found = files.gateway.find(A)
            assert found is not None
            found._ledger.value = Ledger(1)
            if wanted == 200:
                got = await self.do(client.get_object, **KEY)
                self.assertEqual(await self.do(got["Body"].read), b"content")
            else:
                refused = await self.refusal(client.get_object, **KEY)
                self.assertEqual(refused, (503, "ServiceUnavailable"))


class CutTests(FilesCase):
    def signed(self, files: Files, size: int) -> bytes:
        """The head of an upload of so many bytes."""
        request = AWSRequest("PUT", f"http://127.0.0.1:{files.port}/storage/k")
        request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD"
        request.context["payload_signing_enabled"] = False

        class Unsigned(S3SigV4Auth):
            def payload(self, request: Any) -> str:
                return "UNSIGNED-PAYLOAD"

        keys = Credentials(A, file_secret(TENANT_KEY, A))
        Unsigned(keys, "s3", "us-east-1").add_auth(request)
        lines = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        where = f"Host: 127.0.0.1:{files.port}\r\nContent-Length: {size}\r\n"
        return f"PUT /storage/k HTTP/1.1\r\n{where}{lines}\r\n".encode()

    async def test_upload_breaks_off(self) -> None:
        """An upload that is cut leaves no object, and one that was there stays; nothing counts."""
        files = self.files()
        client = await self.client(files, Owner(max_file_bytes=100 * MIB))
        for before in (None, b"the old one"):
            if before is not None:
                await self.do(client.put_object, **KEY, Body=before)

            def cut() -> None:
                with socket.create_connection(("127.0.0.1", files.port)) as raw:
                    raw.sendall(self.signed(files, 2 * MIB) + b"x" * MIB)
                    time.sleep(0.2)

            await deferToThread(cut)
            listed = await self.do(client.list_objects_v2, Bucket="storage")
            self.assertEqual(
                [row["Size"] for row in listed.get("Contents", [])], [11] * bool(before)
            )
            self.assertEqual(files.used_bytes(A), 11 if before else 0)

    async def test_upload_outlives_ownership(self) -> None:
        """An upload under way when ownership is lost is cut off; no object comes of it."""
        files, owner = self.files(), Owner()
        await self.client(files, owner)

        def upload() -> bytes:
            with socket.create_connection(("127.0.0.1", files.port), timeout=10) as raw:
                raw.sendall(self.signed(files, 2 * MIB) + b"x" * MIB)
                while not files._pool.made:  # it was proven, and is on its way to S3
                    time.sleep(0.01)
                owner.lost = True
                try:
                    return raw.recv(1000)
                except ConnectionResetError:
                    return b""

        self.assertEqual(await deferToThread(upload), b"")
        self.assertEqual(self.keys(), [])

    async def test_without_a_length(self) -> None:
        """An upload of unknown length, or one larger than S3 takes, is refused at once."""
        files = self.files()
        await self.client(files, Owner())

        def ask(head: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", files.port), timeout=10) as raw:
                raw.sendall(head)
                return raw.recv(1000)

        head = self.signed(files, 5)
        chunked = head.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")
        self.assertIn(b" 411 ", await deferToThread(ask, chunked))
        huge = head.replace(b"Content-Length: 5", b"Content-Length: %d" % (6 * 1024**3))
        answer = await deferToThread(ask, huge)
        self.assertTrue(b" 400 " in answer or b" 413 " in answer, answer)


class AdoptionTests(FilesCase):
    async def test_files_of_the_disk(self) -> None:
        """Files that PocketBase kept on the disk are in S3 before it starts, with their type and
        metadata; links are not followed; the next start finds nothing to do."""
        files, owner = self.files(), Owner()
        where = self.data / A / "storage" / "col" / "rec"
        where.mkdir(parents=True)
        body = secrets.token_bytes(20 * MIB)
        (where / "f.bin").write_bytes(body)
        attributes = {
            "user.content_type": "text/x-own",
            "user.metadata": {"original-filename": "F.bin"},
        }
        (where / "f.bin.attrs").write_text(json.dumps(attributes))
        (where / "plain").write_bytes(b"1")
        (where / "link").symlink_to("/etc/passwd")
        (self.data / A / "backups").mkdir()
        (self.data / A / "backups" / "x.zip").write_bytes(b"zip")
        client = await self.client(files, owner)
        root = f"tenants/{A}/"
        self.assertEqual(
            self.keys(),
            [
                root + "backups/x.zip",
                root + "storage/col/rec/f.bin",
                root + "storage/col/rec/plain",
            ],
        )
        got = await self.do(client.get_object, Bucket="storage", Key="col/rec/f.bin")
        self.assertEqual(await self.do(got["Body"].read), body)
        self.assertEqual(got["ContentType"], "text/x-own")
        self.assertEqual(got["Metadata"], {"original-filename": "F.bin"})
        left = sorted(each.name for each in (self.data / A).iterdir())
        self.assertEqual(left, ["backups" + DONE, "storage" + DONE])
        await self.do(client.delete_object, Bucket="storage", Key="col/rec/plain")
        await self.client(files, owner)
        self.assertEqual(len(self.keys(root + "storage")), 2)

    async def test_lost_meanwhile(self) -> None:
        """A tenant that is another node's by then brings nothing."""
        files, owner = self.files(), Owner()
        (self.data / A / "storage").mkdir(parents=True)
        (self.data / A / "storage" / "f").write_bytes(b"1")
        owner.lost = True
        with self.assertRaises(Exception) as caught:
            await self.client(files, owner)
        self.assertEqual(type(caught.exception).__name__, "OwnershipLost")
        self.assertEqual(self.keys(), [])
