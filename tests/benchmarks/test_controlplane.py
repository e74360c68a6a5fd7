"""``benchmarks.controlplane``: the world it begins with, its HTTP client, and a tiny whole run."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from pathlib import Path

from click.testing import CliRunner
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from benchmarks import measured
from benchmarks.controlplane import scale
from benchmarks.controlplane.admin_load import loops
from benchmarks.controlplane.world import ON_FIRST_NODE, Size, node_name, registry
from pbcluster.records import ProcessRecord, TenantStatus

#: More than all waits within it together, so that the one that was in vain is told.
WITHIN_S = 300.0


class Worlds(SynchronousTestCase):
    def test_who_has_what(self) -> None:
        """The first node has its share whatever the size, the others have the rest evenly."""
        filled = registry("x.test", Size(500, nodes=4), [ProcessRecord("sim_0", "node", "k")])
        counts = [filled.count_of(node_name(number)) for number in range(4)]
        self.assertEqual(counts, [ON_FIRST_NODE, 100, 100, 100])
        tenant = filled.tenant("tenant000499")
        self.assertEqual((tenant.status, tenant.ever_ready), (TenantStatus.ACTIVE, True))
        # A member that begins with it goes on after its last command.
        self.assertGreaterEqual(filled.applied_index, tenant.version)

    def test_fewer_tenants_than_the_first_node_takes(self) -> None:
        """All of them are its own then."""
        filled = registry("x.test", Size(10, nodes=2), [])
        self.assertEqual(filled.count_of(node_name(0)), 10)


class Loads(SynchronousTestCase):
    def test_answers_of_both_kinds(self) -> None:
        """Bodies of a known length and in chunks, on one connection, each counted by its status."""
        answers = (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
            b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        asked: list[bytes] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError):
                for answer in answers * 2:
                    head = await reader.readuntil(b"\r\n\r\n")
                    body = await reader.readexactly(2 if b"Content-Length: 2\r\n" in head else 0)
                    asked.append(head.split(b"\r\n")[0] + body)
                    writer.write(answer)
            writer.close()

        async def run() -> object:
            async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
                port = server.sockets[0].getsockname()[1]
                request = lambda n: ("POST", f"/{n}", {} if n else None)  # noqa: E731
                return await loops(port, "t", request, in_flight=1, most=4)

        found = asyncio.run(run())
        self.assertEqual(Counter(found.statuses), {200: 2, 202: 2})
        self.assertEqual(asked[:2], [b"POST /api/cp/0 HTTP/1.1", b"POST /api/cp/1 HTTP/1.1{}"])


class Small(TestCase):
    timeout = WITHIN_S

    def test_a_whole_run(self) -> Deferred[None]:
        """Real members with few of everything: each figure of the table is measured, and gateways
        hear of every change and every move."""

        def run() -> None:
            with tempfile.TemporaryDirectory() as directory:
                file = Path(directory) / "figures.json"
                words = "--tenants 230 --nodes 3 --gateways 2 --seconds 0.3 --watch 0.2 --changes 3"
                done = CliRunner().invoke(scale.main, [*words.split(), "--json", str(file)])
                self.assertEqual(done.exit_code, 0, (done.output, done.exception))
                (made,) = measured.read(file)
            (figures,) = made.rounds["230 tenants"]
            self.assertEqual(set(figures), set(scale.LABELS))
            self.assertGreater(figures["creates_s"], 0, (figures, done.output))

        return deferToThread(run)
