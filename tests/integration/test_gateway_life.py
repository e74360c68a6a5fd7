"""A gateway's life in a whole cluster: without a control plane, and replaced under load."""

import json
import threading
import time

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli.http import ask
from pbcluster.errors import PBClusterError
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client
from tests.integration.command_case import CommandCase
from tests.integration.support import new_tenant

#: Longer than any lease, and long enough for a hundred requests.
OUTAGE_S = 10.0
RECORDS = "/api/collections/journal/records"


class OutageTests(SynchronousTestCase):
    timeout = 240

    def setUp(self) -> None:
        settings = {"gateway": {"hold_s": 2.0}}
        self.cluster = RealCluster(nodes=1, members=3, settings=settings)
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        self.client = new_tenant(self.cluster, "shop")
        self.rows = 0

    def write_and_read(self, client: Client) -> None:
        self.rows += 1
        row = {"n": self.rows, "value": f"v{self.rows}"}
        status, made = client.ask("POST", RECORDS, row)
        self.assertEqual(status, 200, f"{made}\n{self.cluster.logs()}")
        status, found = client.ask("GET", f"{RECORDS}/{made['id']}")
        self.assertEqual((status, found.get("n")), (200, self.rows), self.cluster.logs())

    def routes(self) -> list[dict[str, object]]:
        where = self.cluster.ready("gateway_1")["metrics"]
        answer = ask("GET", f"{where}/debug/routes", timeout_s=10)
        rows: list[dict[str, object]] = json.loads(answer.body)["routes"]
        return rows

    def test_no_member_lives(self) -> None:
        """All members are dead: reads and writes of a known tenant go on, through a gateway that
        was restarted meanwhile too; an unknown one gets 503 with Retry-After, not 404. When the
        members are back, routes are fresh and new tenants answer."""
        cluster = self.cluster
        for member in cluster.ids("member"):
            cluster.kill9(member)
        until = time.monotonic() + OUTAGE_S
        while time.monotonic() < until:
            self.write_and_read(self.client)
        cluster.restart("gateway_1")
        again = Client(cluster.gateway_url, cluster.host("shop"))
        again.token = self.client.token
        for _ in range(20):
            self.write_and_read(again)
        unknown = cluster.ask_tenant("nobody", "GET", "/api/health")
        self.assertEqual(unknown.status, 503, unknown.body)
        self.assertIn("retry-after", {name.lower() for name in unknown.headers})

        cluster.start(*cluster.ids("member"))
        self.addCleanup(again.close)
        cluster.wait_until(
            lambda: {row["state"] for row in self.routes()} == {"fresh"}, "fresh routes"
        )
        self.write_and_read(again)
        new_tenant(cluster, "late")
        self.assertEqual(cluster.ask_tenant("nobody", "GET", "/api/health").status, 404)


class RestartCommandTests(CommandCase):
    timeout = 240

    def test_restart_under_load(self) -> None:
        """`pbcluster restart` puts another process in the gateway's place: whoever asks all the
        time, over new connections, gets every answer. Who is no process is named, and a gateway
        whose new settings are wrong goes on with the former ones."""
        ports = ("--gateway-port", "0", "--admin-port", "0", "--nodes", "1", "--members", "1")
        found = self.up("one", *ports)
        self.create("one", "shop")
        gateway = next(row for row in found["processes"] if row["id"] == "gateway_1")
        errors: list[str] = []
        answers = 0
        over = threading.Event()

        def load() -> None:
            nonlocal answers
            url, host = f"{gateway['address']}/api/health", {"Host": "shop.localhost"}
            while not over.is_set():
                try:
                    status = ask("GET", url, headers=host, timeout_s=30).status
                except PBClusterError as error:
                    errors.append(str(error))
                else:
                    answers += status == 200
                    if status != 200:
                        errors.append(str(status))

        threads = [threading.Thread(target=load, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        pids = {gateway["pid"]}
        for _ in range(2):
            pids.add(self.json("one", "restart", "gateway_1")["pid"])
        over.set()
        for thread in threads:
            thread.join(60)
        self.assertEqual(errors, [])
        self.assertGreater(answers, 20)
        self.assertEqual(len(pids), 3)
        refused = self.cli("one", "restart", "node_7", fails=True)
        self.assertIn("no process 'node_7'; there are: s3_1, member_1", refused.stderr)

        with (self.root / "one" / "cluster.toml").open("a") as plan:
            plan.write("\n[settings.gateway]\nhold_s = 9999\n")
        failed = self.cli("one", "restart", "gateway_1", fails=True)
        self.assertIn("gateway_1 was not replaced, its successor ended", failed.stderr)
        url, host = f"{gateway['address']}/api/health", {"Host": "shop.localhost"}
        self.assertEqual(ask("GET", url, headers=host, timeout_s=30).status, 200)
