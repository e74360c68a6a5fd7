"""Uploaded files on the whole platform: real PocketBase, Litestream, SeaweedFS, processes."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import signal
import socket
import struct
import time
import tomllib
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import procfs
from pbcluster.node.files.deletions import read_name
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client
from tests.integration.support import EMAIL, PASSWORD

WINDOW_S = 4.0
MIB = 1024 * 1024
DOCS = "/api/collections/docs/records"
QUOTAS = {"maxFileBytes": 150 * MIB, "maxBodyBytes": 200 * MIB}


def picture() -> bytes:
    """A small PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    size = struct.pack(">IIBBBBB", 20, 20, 8, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + b"\xff\0\0" * 20) * 20)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


class FilesTests(SynchronousTestCase):
    timeout = 180

    def start(self, nodes: int = 2, **settings: Any) -> None:
        wanted = {
            "node": {"files_window_s": WINDOW_S, **settings},
            "gateway": {"max_body_bytes": 200 * MIB},
        }
        self.cluster = RealCluster(nodes=nodes, members=1, settings=wanted)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.cluster.create_tenant("shop", EMAIL, PASSWORD, quotas=QUOTAS)
        self.client = Client(self.cluster.gateway_url, self.cluster.host("shop"))
        self.client.sign_in(EMAIL, PASSWORD)
        field = {"name": "f", "type": "file", "maxSize": 200 * MIB, "thumbs": ["10x10"]}
        anybody = dict.fromkeys(("listRule", "viewRule", "createRule", "deleteRule"), "")
        made = {"name": "docs", "type": "base", "fields": [field], **anybody}
        status, answer = self.client.ask("POST", "/api/collections", made)
        self.assertEqual(status, 200, answer)

    @property
    def owner(self) -> str:
        node: str = self.cluster.admin.tenant("shop")["nodeID"]
        return node

    def connection(self) -> http.client.HTTPConnection:
        where = urlsplit(self.cluster.gateway_url)
        return http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        connection = self.connection()
        given = {"Host": self.cluster.host("shop"), **(headers or {})}
        try:
            with contextlib.suppress(BrokenPipeError):  # an upload that is refused early
                connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def upload(self, name: str, content: bytes) -> tuple[int, dict[str, Any]]:
        head = (
            f'--b\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        form = {"Content-Type": "multipart/form-data; boundary=b"}
        status, answer = self.ask("POST", DOCS, head + content + b"\r\n--b--\r\n", form)
        return status, json.loads(answer)

    def path(self, record: dict[str, Any]) -> str:
        return f"/api/files/docs/{record['id']}/{record['f']}"

    def s3(self) -> tuple[Any, str]:
        """The cluster's S3, with its own keys, and its bucket."""
        where = self.cluster.where
        config = tomllib.loads((where.root / "config" / "node_1.toml").read_text())
        own = tomllib.loads((where.root / "secrets" / "node_1.toml").read_text())
        client = boto3.client(
            "s3",
            endpoint_url=config["s3_endpoint"],
            aws_access_key_id=own["s3_access_key"],
            aws_secret_access_key=own["s3_secret_key"],
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        return client, config["s3_bucket"]

    def keys(self, below: str) -> list[str]:
        client, bucket = self.s3()
        root = f"tenants/{self.cluster.admin.tenant('shop')['id']}/"
        page = client.list_objects_v2(Bucket=bucket, Prefix=root + below)
        return [row["Key"][len(root) :] for row in page.get("Contents", [])]


class LifeTests(FilesTests):
    def test_restored_rows_have_their_files(self) -> None:
        """A file that was deleted after a backup is there again when the backup is restored."""
        self.start(nodes=1, files_window_s=86_400.0)
        _, record = self.upload("one.bin", b"one")
        status, answer = self.client.ask("POST", "/api/backups", {"name": "mine.zip"})
        self.assertEqual(status, 204, answer)
        self.assertEqual(self.ask("DELETE", f"{DOCS}/{record['id']}")[0], 204)
        self.assertEqual(self.ask("GET", self.path(record))[0], 404)
        status, answer = self.client.ask("POST", "/api/backups/mine.zip/restore")
        self.assertEqual(status, 204, f"{answer}\n{self.cluster.logs()}")
        self.assertEqual(self.ask("GET", self.path(record)), (200, b"one"))

    def test_files_outlive_their_node(self) -> None:
        """kill -9 of a node, between PocketBase's deletion of a file and the sync of its row: on
        the next node every upload and backup is there byte for byte, ranges and thumbs too; the
        row whose deletion nobody was told of is back with its file; what was deleted and
        acknowledged stays away, and leaves S3 after the window. Nothing lies on a disk."""
        self.start()
        small, large = secrets.token_bytes(5000), secrets.token_bytes(14 * MIB)
        _, one = self.upload("one.bin", small)
        _, two = self.upload("two.bin", large)
        _, image = self.upload("p.png", picture())
        _, gone = self.upload("gone.bin", b"gone")
        _, kept = self.upload("kept.bin", small)
        self.assertEqual(self.ask("DELETE", f"{DOCS}/{gone['id']}")[0], 204)
        self.assertEqual(self.ask("GET", self.path(gone))[0], 404)
        status, answer = self.client.ask("POST", "/api/backups", {"name": "mine.zip"})
        self.assertEqual(status, 204, answer)
        covered = lambda: any("COVERED" in key for key in self.keys("deletes/"))  # noqa: E731
        self.cluster.wait_until(covered, "the deletion to be covered")

        first = self.owner
        self.freeze_litestream(first)
        connection = self.connection()
        host = {"Host": self.cluster.host("shop")}
        connection.request("DELETE", f"{DOCS}/{kept['id']}", headers=host)
        self.cluster.wait_until(lambda: self.recorded("kept"), "the second deletion's record")
        self.cluster.kill9(first)
        connection.close()
        self.cluster.wait_tenant("shop")
        self.assertNotEqual(self.owner, first)

        for record, content in ((one, small), (two, large), (kept, small)):
            self.assertEqual(self.client.ask("GET", f"{DOCS}/{record['id']}")[0], 200)
            self.assertEqual(self.ask("GET", self.path(record)), (200, content))
        status, part = self.ask("GET", self.path(two), headers={"Range": "bytes=7000000-7000099"})
        self.assertEqual((status, part), (206, large[7000000:7000100]))
        status, thumb = self.ask("GET", self.path(image) + "?thumb=10x10")
        self.assertEqual((status, thumb[:4]), (200, b"\x89PNG"))
        self.assertTrue([key for key in self.keys("storage/") if "thumbs_" in key])
        self.assertEqual(self.ask("GET", self.path(gone))[0], 404)
        self.cluster.wait_until(lambda: not self.keys("deletes/"), "all deletions to be done", 30.0)
        stored = self.keys("storage/")
        self.assertEqual([key for key in stored if "gone" in key], [])
        self.assertEqual(len([key for key in stored if "kept" in key]), 1)
        self.assertEqual(self.ask("GET", self.path(kept)), (200, small))
        self.check_backup("mine.zip")
        self.assertEqual(list(self.cluster.where.root.glob("data/*/tenants/*/data/storage/*")), [])

    def recorded(self, name: str) -> bool:
        """Whether the deletion of a file of this name stands in S3."""
        found = (read_name(key.removeprefix("deletes/")) for key in self.keys("deletes/"))
        return any(name in each.key for each in found if each is not None)

    def freeze_litestream(self, node: str) -> None:
        """No sync succeeds on it any more."""
        (found,) = [
            who
            for who in self.cluster.children_of(node)
            if b"litestream" in Path(f"/proc/{who.pid}/cmdline").read_bytes().split(b"\0")[0]
        ]
        procfs.send(found, signal.SIGSTOP)

    def check_backup(self, name: str) -> None:
        """It is listed, can be had, and is gone when it is deleted."""
        status, listed = self.client.ask("GET", "/api/backups")
        self.assertEqual((status, [row["key"] for row in listed]), (200, [name]))
        token = self.client.ask("POST", "/api/files/token")[1]["token"]
        status, body = self.ask("GET", f"/api/backups/{name}?token={token}")
        self.assertEqual((status, body[:2], len(body)), (200, b"PK", listed[0]["size"]))
        self.assertEqual(self.client.ask("DELETE", f"/api/backups/{name}")[0], 204)
        self.assertEqual(self.client.ask("GET", "/api/backups")[1], [])


class LoadTests(FilesTests):
    def test_large_cut_and_over_quota(self) -> None:
        """100 MB go through in bounded memory; an upload that breaks off leaves no object; one
        over the quota is 507 before PocketBase has it; while S3 is away uploads and downloads are
        refused quickly and nothing half is left."""
        self.start(nodes=1)
        pid = self.cluster.pid(self.owner)
        assert pid is not None
        content = secrets.token_bytes(MIB) * 100
        self.upload("warm.bin", content[: 8 * MIB])
        before = peak_kib(pid)
        status, large = self.upload("large.bin", content)
        self.assertEqual(status, 200, large)
        status, got = self.ask("GET", self.path(large))
        self.assertEqual((status, got == content), (200, True))
        self.assertLess(peak_kib(pid) - before, 40 * 1024, "the node holds what it moves")

        there = self.keys("storage/")
        where = urlsplit(self.cluster.gateway_url)
        with socket.create_connection((where.hostname, where.port)) as raw:
            head = (
                f"POST {DOCS} HTTP/1.1\r\nHost: {self.cluster.host('shop')}\r\n"
                f"Content-Length: {20 * MIB}\r\n"
                "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n"
                'Content-Disposition: form-data; name="f"; filename="cut.bin"\r\n\r\n'
            )
            raw.sendall(head.encode() + content[: 10 * MIB])
        self.assertEqual(self.keys("storage/"), there)

        status, refused = self.upload("more.bin", content[: 60 * MIB])
        self.assertEqual((status, refused["data"]["code"]), (507, "storage_full"))

        self.cluster.stop_s3()
        began = time.monotonic()
        status, _ = self.ask("GET", self.path(large))
        self.assertNotEqual(status, 200)
        status, _ = self.upload("away.bin", b"away")
        self.assertNotEqual(status, 200)
        self.assertLess(time.monotonic() - began, 20.0)
        self.cluster.start_s3()
        self.assertEqual(self.keys("storage/"), there)
        last = {"Range": f"bytes=-{MIB}"}
        self.assertEqual(self.ask("GET", self.path(large), headers=last), (206, content[-MIB:]))


def peak_kib(pid: int) -> int:
    """The most memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError("no VmHWM")
