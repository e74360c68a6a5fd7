"""Uploads and downloads through the node's file gateway beside PocketBase straight on the same S3.

    python -m benchmarks.node.files [--rounds N] [--mib N] [--small N] [--rst FILE]

Two PocketBase processes on one SeaweedFS: one has the real keys, the other speaks to a file gateway
in a process of its own, with a proof always at hand. They take turns, and which begins changes each
round; the ratio is the median of the rounds' ratios (above 1: the gateway is slower).
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pbcluster import binaries
from pbcluster.testing.free_ports import free_ports
from pbcluster.testing.seaweed import Seaweed

EMAIL, PASSWORD = "bench@example.com", "long enough for this"
TENANT = "tenant_benchmark"
DOCS = "/api/collections/docs/records"
MIB = 1024 * 1024
WAIT_S = 20.0

MIGRATION = """migrate((app) => {
  const wanted = %s, settings = app.settings();
  for (const name in wanted) { settings.s3[name] = wanted[name]; }
  settings.logs.maxDays = 0;
  app.save(settings);
  const user = new Record(app.findCollectionByNameOrId("_superusers"));
  user.set("email", "%s");
  user.set("password", "%s");
  app.save(user);
  app.save(new Collection({name: "docs", type: "base", viewRule: "", createRule: "",
    fields: [{name: "f", type: "file", maxSize: 1073741824}]}));
}, (app) => {})
"""


class PocketBase:
    """One process on the S3 that it is told."""

    def __init__(self, root: Path, storage: dict[str, object]) -> None:
        (root / "migrations").mkdir(parents=True)
        made = MIGRATION % (json.dumps(storage), EMAIL, PASSWORD)
        (root / "migrations" / "1999999999_bench.js").write_text(made)
        (port,) = free_ports(1)
        self.port = port
        self.process = subprocess.Popen(
            [
                str(binaries.locate("pocketbase")),
                "serve",
                f"--dir={root / 'data'}",
                f"--migrationsDir={root / 'migrations'}",
                f"--http=127.0.0.1:{port}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        until = time.monotonic() + WAIT_S
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/api/health")[0] == 200:
                    return
            self.connection.close()
            if time.monotonic() > until:
                raise SystemExit("PocketBase does not start")
            time.sleep(0.05)

    def ask(self, method: str, path: str, body: bytes | None = None, form: str = "") -> tuple:
        headers = {"Content-Type": form} if form else {}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def upload(self, content: bytes) -> str:
        head = (
            '--b\r\nContent-Disposition: form-data; name="f"; filename="f.bin"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + content + b"\r\n--b--\r\n"
        status, answer = self.ask("POST", DOCS, body, "multipart/form-data; boundary=b")
        if status != 200:
            raise SystemExit(f"an upload answered {status}: {answer[:300]!r}")
        record = json.loads(answer)
        return f"/api/files/docs/{record['id']}/{record['f']}"

    def download(self, path: str, size: int) -> None:
        status, answer = self.ask("GET", path)
        if status != 200 or len(answer) != size:
            raise SystemExit(f"a download answered {status} and {len(answer)} bytes")


@contextlib.contextmanager
def gateway_of(seaweed: Seaweed, bucket: str) -> Iterator[dict[str, object]]:
    """A file gateway in a process of its own. :returns: PocketBase's settings for it."""
    given = {"endpoint": seaweed.spec.s3_url, "bucket": bucket}
    given |= {"access_key": seaweed.access_key, "secret_key": seaweed.secret_key}
    host = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.node.files_host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert host.stdin is not None
    assert host.stdout is not None
    try:
        print(json.dumps(given), file=host.stdin, flush=True)
        yield json.loads(host.stdout.readline())
    finally:
        host.kill()  # it holds nothing
        host.wait(WAIT_S)


def measure(one: PocketBase, mib: int, small: int) -> dict[str, float]:
    """Seconds of each part."""
    large, tiny = secrets.token_bytes(mib * MIB), secrets.token_bytes(4096)

    def timed(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    paths: list[str] = []
    figures = {"upload": timed(lambda: paths.append(one.upload(large)))}
    figures["download"] = timed(lambda: one.download(paths[0], len(large)))
    figures["small uploads"] = timed(lambda: paths.extend(one.upload(tiny) for _ in range(small)))
    figures["small downloads"] = timed(
        lambda: [one.download(path, len(tiny)) for path in paths[1:]]
    )
    return figures


def report(rounds: list[tuple[dict[str, float], dict[str, float]]], mib: int, small: int) -> str:
    """A table in reStructuredText."""
    rows = []
    for name in rounds[0][0]:
        ours = statistics.median(each[0][name] for each in rounds)
        direct = statistics.median(each[1][name] for each in rounds)
        ratio = statistics.median(each[0][name] / each[1][name] for each in rounds)
        if name.startswith("small"):
            told = (f"{small} × 4 KiB {name[6:]}", f"{ours / small * 1000:.1f} ms each")
            direct_told = f"{direct / small * 1000:.1f} ms each"
        else:
            told = (f"{name} of {mib} MiB", f"{mib / ours:.0f} MiB/s")
            direct_told = f"{mib / direct:.0f} MiB/s"
        rows.append((*told, direct_told, f"{ratio:.2f}"))
    heads = ("what", "through the gateway", "straight to S3", "ratio of times")
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(4)]
    line = " ".join("=" * width for width in widths)
    told_rows = [
        " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]
    return "\n".join([line, told_rows[0], line, *told_rows[1:], line]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mib", type=int, default=64)
    parser.add_argument("--small", type=int, default=50)
    parser.add_argument("--rst", type=Path)
    asked = parser.parse_args()
    seaweed = Seaweed()
    seaweed.start()
    running: list[PocketBase] = []
    try:
        bucket = seaweed.new_bucket()
        straight = {
            "enabled": True,
            "bucket": bucket,
            "region": "us-east-1",
            "endpoint": seaweed.spec.s3_url,
            "accessKey": seaweed.access_key,
            "secret": seaweed.secret_key,
            "forcePathStyle": True,
        }
        with tempfile.TemporaryDirectory() as root, gateway_of(seaweed, bucket) as storage:
            running.append(PocketBase(Path(root) / "ours", storage))
            running.append(PocketBase(Path(root) / "straight", straight))
            rounds = []
            for number in range(-1, asked.rounds):
                order = (0, 1) if number % 2 else (1, 0)
                found = {at: measure(running[at], asked.mib, asked.small) for at in order}
                if number >= 0:  # the first one warms up
                    rounds.append((found[0], found[1]))
            for each in running:
                each.process.terminate()
                each.process.wait(WAIT_S)
    finally:
        for each in running:
            each.process.kill()
        seaweed.stop()
    text = report(rounds, asked.mib, asked.small)
    print(text, end="")
    if asked.rst is not None:
        asked.rst.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
