"""A real cluster with one node on this machine, its tenants, and what its processes weigh.

Everything is real: SeaweedFS, member, node, gateway, Litestream, PocketBase. Threads ask on behalf
of users; :class:`Wire` is a client so small that it does not stand in the way of a measure.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs

from benchmarks.gateway.processes import cpu_s, family
from pbcluster import signing
from pbcluster.config import load_secrets
from pbcluster.errors import DeadlineExceeded
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import COLLECTION, Client, prepare

EMAIL, PASSWORD = "bench@example.com", "a password for the bench"
#: Requests of users at once, where many tenants are woken.
AT_ONCE = 32
WITHIN_S = 120.0
RECORDS = f"/api/collections/{COLLECTION}/records"


def pss_bytes(pids: Iterable[int]) -> int:
    """Sum of the proportional set sizes: shared pages count once in all (smaps_rollup)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = re.search(
                r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M
            )
            total += int(found[1]) * 1024 if found else 0
    return total


def cpu_share(pids: Iterable[int], seconds: float) -> float:
    """Share of one core that these processes take during the next ``seconds``."""
    them = list(pids)
    before, began = cpu_s(*them), time.monotonic()
    time.sleep(seconds)
    return (cpu_s(*them) - before) / (time.monotonic() - began)


def processes_of(cluster: RealCluster, node: str) -> list[int]:
    """The node and everything below it."""
    pid = cluster.pid(node)
    return family(pid) if pid is not None else []


def create_tenants(cluster: RealCluster, names: list[str], **more: Any) -> None:
    """Create them all and wait until each answers."""

    def create(name: str) -> None:
        cluster.admin.create_tenant(name, EMAIL, PASSWORD, **more)
        first_answer_s(cluster, name)

    everywhere(create, names)


def everywhere(do: Callable[[str], Any], names: list[str]) -> list[Any]:
    """``do`` for each name, :data:`AT_ONCE` at a time. :returns: the results in order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(do, names))


def first_answer_s(cluster: RealCluster, name: str, path: str = "/api/health") -> float:
    """Seconds until a user's request is answered with 200, refusals repeated as a client would.

    :raises DeadlineExceeded: it is not within :data:`WITHIN_S`.
    """
    began = time.monotonic()
    while cluster.ask_tenant(name, "GET", path, timeout_s=WITHIN_S).status != 200:
        if time.monotonic() - began > WITHIN_S:
            raise DeadlineExceeded(f"{name} does not answer within {WITHIN_S:g} s")
        time.sleep(0.01)
    return time.monotonic() - began


def signed_in(cluster: RealCluster, name: str) -> Client:
    """A client of the tenant, as its superuser, with the collection of the workload."""
    client = Client(cluster.gateway_url, cluster.host(name))
    client.sign_in(EMAIL, PASSWORD)
    prepare(client)
    return client


def fill(client: Client, size_bytes: int) -> None:
    """Make the tenant's database about so large, by the superuser's own SQL."""
    rows, each = max(1, size_bytes // 1_000_000), min(size_bytes, 1_000_000)
    step = 50
    for begun in range(0, rows, step):
        count = min(step, rows - begun)
        query = (
            f"INSERT INTO {COLLECTION} (id, n, value) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL "
            f"SELECT i + 1 FROM c WHERE i < {count}) SELECT 'f' || lower(hex(randomblob(7))), i, "
            f"hex(randomblob({each // 2})) FROM c"
        )
        status, answer = client.ask("POST", "/api/sql", {"query": query})
        if status not in (200, 204):
            raise SystemExit(f"filling a database answered {status}: {answer}")


def pocketbase_port(cluster: RealCluster, node: str, tenant_id: str) -> int:
    """The port of a running tenant's PocketBase, as its command line tells."""
    for pid in processes_of(cluster, node):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            port = next((w for w in words if w.startswith("--http=127.0.0.1:")), "")
            if port and any(f"/{tenant_id}/" in word for word in words):
                return int(port.rpartition(":")[2])
    raise SystemExit(f"{tenant_id} does not run on {node}")


@attrs.define
class Wire:
    """One keep-alive connection: sends bytes, returns the status of the answer.

    :ivar signer: makes the platform's field for each request, or none.
    """

    port: int
    host: str
    signer: Callable[[bytes, bytes], bytes] | None = None
    _socket: socket.socket | None = None

    def ask(self, method: bytes, target: bytes, body: bytes = b"") -> int:
        """One request and its whole answer. :returns: the status."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port), timeout=60.0)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, target, self.host.encode())
        if self.signer is not None:
            head += b"%b: %b\r\n" % (signing.SIGNED, self.signer(method, target))
        if body:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        self._socket.sendall(head + b"\r\n" + body)
        return self._answer(self._socket)

    def _answer(self, connection: socket.socket) -> int:
        received = b""
        while True:
            more = connection.recv(1 << 16)
            if not more:
                raise SystemExit("a connection was closed in mid-answer")
            received += more
            head, end, rest = received.partition(b"\r\n\r\n")
            if not end:
                continue
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.I)
            if len(rest) >= int(length[1]) if length else rest.endswith(b"0\r\n\r\n"):
                return int(head[9:12])

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def to_node(cluster: RealCluster, tenant: dict[str, Any]) -> Wire:
    """A connection to the tenant's node, which takes us for its gateway."""
    gateway = cluster.ids("gateway")[0]
    key = load_secrets(cluster.where.secrets(gateway)).gateway_keys[gateway]

    def sign(method: bytes, target: bytes) -> bytes:
        what = signing.Signed(
            gateway, tenant["id"], tenant["epoch"], time.time_ns() // 1_000_000, "bench"
        )
        return signing.sign(key.encode(), method, target, what)

    port = urlsplit(cluster.ready(tenant["nodeID"])["node"]).port or 0
    return Wire(port, cluster.host(tenant["name"]), sign)


def row(number: int, name: str) -> bytes:
    """The body of a record with an id of its own."""
    return json.dumps({"id": f"{name}{number:0{15 - len(name)}}", "n": number}).encode()


@contextlib.contextmanager
def one_node(**settings: Any) -> Iterator[RealCluster]:
    """A cluster with one member, one node and one gateway that serves."""
    given = {"node": {"capacity": 250, **settings}}
    with RealCluster(nodes=1, members=1, settings=given) as cluster:
        cluster.start()
        yield cluster
