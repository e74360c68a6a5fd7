"""The checker of acknowledged writes finds what a bad server does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.workload import Client, Event, Failed, Journal, Workload, check, prepare


class Store(BaseHTTPRequestHandler):
    """A records API in memory; ``fault`` of its server says how it is bad."""

    protocol_version = "HTTP/1.1"
    wbufsize = 65536

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/api/collections":
            return self.answer(200, row)
        rows, fault = self.server.rows, self.server.fault  # type: ignore[attr-defined]
        if fault == "refuse but keep":
            rows[row["id"]] = row
            return self.answer(400, {})
        if fault == "cut":
            rows[row["id"]] = row
            self.close_connection = True
            return None
        if fault != "forget":
            value = "wrong" if fault == "change" else row["value"]
            rows[row["id"]] = {**row, "value": value}
        return self.answer(200, row)

    def do_GET(self) -> None:
        rows = self.server.rows  # type: ignore[attr-defined]
        path, _, query = self.path.partition("?")
        if query:
            items = sorted(rows.values(), key=lambda row: row["id"])
            page = int(query.split("page=")[-1].split("&")[0])
            return self.answer(200, {"items": items[(page - 1) * 500 : page * 500]})
        row = rows.get(path.rpartition("/")[2])
        return self.answer(200, row) if row else self.answer(404, {})


class WorkloadTests(SynchronousTestCase):
    def serve(self, fault: str = "") -> tuple[str, Client]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
        server.rows, server.fault = {}, fault  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        url = f"http://127.0.0.1:{server.server_address[1]}"
        client = Client(url, "t.localhost")
        self.addCleanup(client.close)
        prepare(client)
        return url, client

    def run_until(self, fault: str, events: int) -> tuple[Journal, Client]:
        url, client = self.serve(fault)
        workload = Workload(url, "t.localhost", "w", writers=2, readers=1)
        with workload.running() as journal:
            reads = 0
            while len(journal.events) < events or (journal.acked and reads < 2):
                reads = sum(event.kind == "read" for event in list(journal.events))
                threading.Event().wait(0.002)
        return journal, client

    def test_a_good_server(self) -> None:
        """A server that keeps every row passes, page after page."""
        journal, client = self.run_until("", 1200)
        verdict = check(client, journal)
        self.assertTrue(verdict.good, verdict)
        self.assertGreater(verdict.rows, 0)
        self.assertEqual((journal.stale, journal.failures()), ([], []))

    def test_lost(self) -> None:
        """An acknowledged row that is not there is lost, and reading it is stale."""
        journal, client = self.run_until("forget", 40)
        self.assertEqual(set(check(client, journal).lost), set(journal.acked))
        self.assertTrue(journal.stale)

    def test_changed(self) -> None:
        """An acknowledged row with another value is found."""
        journal, client = self.run_until("change", 40)
        self.assertEqual(set(check(client, journal).changed), set(journal.acked))
        self.assertTrue(journal.stale)

    def test_invented(self) -> None:
        """A row whose creation was refused must not be there."""
        journal, client = self.run_until("refuse but keep", 4)
        verdict = check(client, journal)
        self.assertFalse(verdict.good)
        self.assertTrue(verdict.invented)

    def test_unknown_fate(self) -> None:
        """A row whose connection broke may be there: neither lost nor invented."""
        journal, client = self.run_until("cut", 4)
        self.assertTrue(journal.unknown)
        self.assertTrue(check(client, journal).good)
        self.assertFalse(journal.acked)

    def test_waiting_for_acks_ends(self) -> None:
        """Waiting for acknowledgements that never come ends with what was seen."""
        url, _ = self.serve("refuse but keep")
        workload = Workload(url, "t.localhost", "w")
        with workload.running(), self.assertRaisesRegex(Failed, "no 1 acknow.*400"):
            workload.wait_for_acks(1, timeout_s=0.3)

    def test_longest_gap(self) -> None:
        """The longest time without a good answer counts from the given moment, failures ignored."""
        journal = Journal()
        for ended, status in ((1.0, 200), (2.0, 503), (4.5, 200), (5.0, 200)):
            journal.events.append(Event("write", "r", ended - 0.5, ended, status))
        self.assertEqual(journal.longest_gap(1.5), 3.0)
        self.assertAlmostEqual(journal.longest_gap(4.6), 0.4)
        self.assertEqual(journal.longest_gap(9.0), float("inf"))
