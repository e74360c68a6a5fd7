"""The seed's tables on real parts, row by row: its admin endpoints, the fields of its records, a
first request and a second one. What needs more than a tenant and two nodes has tests of its own;
docs/testing.rst says which."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

from pbcluster.cli.http import Answer, ask
from pbcluster.testing.cluster import RealCluster
from tests.integration.support import EMAIL, PASSWORD
from tests.integration.test_crossing import CrossingTestCase

#: A heartbeat comes every 5 s.
BEATS_WITHIN_S = 20.0
RECORDS = "/api/collections/_superusers/records"


class SeedTests(CrossingTestCase):
    def test_endpoints_records_and_first_requests(self) -> None:
        """Each external endpoint answers in the seed's spelling, each field of its records is
        there, with what real parts say; a first request finds its way, the second one by the
        gateway's own route; a migration is told by both routes; a node that dies is down after
        15 s, and its tenant is elsewhere before."""
        settings: dict[str, Any] = {"node": {"region": "us-east-1a"}}
        self.real = RealCluster(nodes=2, settings=settings)
        self.addCleanup(self.real.close)
        self.real.start()
        self.made = self.create()
        self.first_and_second_request()
        self.tenants_endpoints()
        self.records_of_tenant_and_node()
        self.migrates()
        self.node_fails_and_returns()
        self.ends()

    def cp(self, method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
        """Ask the leader's admin API, as an operator's own script would."""
        headers = {"Authorization": f"Bearer {self.real.where.token()}"}
        headers["Content-Type"] = "application/json"
        content = None if body is None else json.dumps(body).encode()
        url = f"{self.real.plan.admin_urls[0]}/api/cp{path}"
        return ask(method, url, headers=headers, body=content, timeout_s=60)

    def told(self, status: int, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer = self.cp(method, path, body)
        self.assertEqual(answer.status, status, answer.body)
        told: dict[str, Any] = json.loads(answer.body)
        return told

    def routes(self) -> dict[str, dict[str, Any]]:
        """The gateway's own routes by tenant."""
        where = self.real.ready("gateway_1")["metrics"]
        rows = json.loads(ask("GET", f"{where}/debug/routes", timeout_s=10).body)["routes"]
        return {row["tenantID"]: row for row in rows}

    def create(self) -> dict[str, Any]:
        body = {
            "name": "tenant123",
            "superuser": {"email": EMAIL, "password": PASSWORD},
            "quotas": {"maxBodyBytes": 100_000},
            "metadata": {"plan": "free", "seats": 3},
        }
        return self.told(201, "POST", "/tenants?wait=30", body)

    def first_and_second_request(self) -> None:
        tenant_id = self.made["id"]
        known = self.routes().get(tenant_id, {"hits": 0})  # a broadcast may have told it
        self.assertEqual(known["hits"], 0)
        for hits in (1, 2):
            answer = self.real.ask_tenant("tenant123", "GET", "/api/health")
            self.assertEqual(answer.status, 200)
            row = self.routes()[tenant_id]
            self.assertEqual(row["nodeID"], self.made["nodeID"])
            self.assertEqual(row["nodeAddr"], self.made["nodeAddr"])
            self.assertGreaterEqual(row["cachedAgo"], 0)
            self.assertGreaterEqual(row["hits"], hits - 1)  # the first may be what asks for it
        self.assertEqual(self.real.ask_tenant("tenant123", "GET", RECORDS).status, 403)

    def tenants_endpoints(self) -> None:
        tenant_id = self.made["id"]
        listed = self.told(200, "GET", "/tenants")["items"]
        self.assertEqual([each["id"] for each in listed], [tenant_id])
        by_name = self.told(200, "GET", "/tenants/tenant123")
        self.assertEqual(self.told(200, "GET", f"/tenants/{tenant_id}")["id"], by_name["id"])
        changed = self.told(200, "PUT", f"/tenants/{tenant_id}", {"metadata": {"plan": "pro"}})
        self.assertEqual(changed["metadata"], {"plan": "pro"})
        self.assertGreater(changed["updated"], self.made["updated"])
        self.assertEqual(self.cp("GET", "/tenants/nobody").status, 404)
        health = self.told(200, "GET", "/health")
        self.assertEqual(health["status"], "ok")

    def records_of_tenant_and_node(self) -> None:
        tenant = self.told(200, "GET", "/tenants/tenant123")
        self.assertTrue(tenant["id"].startswith("tenant_"))
        self.assertEqual(tenant["domain"], self.real.host("tenant123"))
        self.assertEqual((tenant["status"], tenant["nodeID"]), ("active", self.made["nodeID"]))
        self.assertLess(datetime.fromisoformat(tenant["created"]).timestamp(), time.time())
        self.assertEqual(tenant["quotas"]["maxBodyBytes"], 100_000)
        nodes = {each["id"]: each for each in self.told(200, "GET", "/nodes")["items"]}
        self.assertEqual(set(nodes), {"node_1", "node_2"})
        self.real.wait_until(self.beats, "a heartbeat with the tenant in it", BEATS_WITHIN_S)
        node = self.told(200, "GET", f"/nodes/{tenant['nodeID']}")
        self.assertEqual(node["address"], self.made["nodeAddr"])
        self.assertEqual((node["capacity"], node["activeCount"]), (200, 1))
        self.assertEqual((node["status"], node["region"]), ("healthy", "us-east-1a"))
        # What runs is active; cached are copies of what does not.
        self.assertEqual((node["tenants"], node["cachedCount"]), ([tenant["id"]], 0))
        ago = time.time() - datetime.fromisoformat(node["lastHeartbeat"]).timestamp()
        self.assertLess(ago, BEATS_WITHIN_S)
        resources = node["resources"]
        self.assertTrue(0.0 <= resources["cpuUsage"] <= 1.0, resources)
        self.assertGreater(resources["memoryUsedBytes"], 0)
        self.assertGreater(resources["diskUsedBytes"], 0)
        self.assertEqual(set(node["cache"]), {"hits", "misses", "evictions"})
        self.assertGreaterEqual(node["cache"]["hits"] + node["cache"]["misses"], 1)
        self.assertIsNotNone(self.told(200, "GET", "/tenants/tenant123")["lastAccess"])

    def beats(self) -> bool:
        node = self.told(200, "GET", f"/nodes/{self.made['nodeID']}")
        tenant = self.told(200, "GET", "/tenants/tenant123")
        return node["activeCount"] == 1 and tenant["usage"]["requests"] > 0

    def migrates(self) -> None:
        source = self.made["nodeID"]
        target = next(node for node in self.real.ids("node") if node != source)
        before = self.routes()[self.made["id"]]
        self.told(202, "POST", "/tenants/tenant123/migrate", {"targetNode": target})
        path = "/tenants/tenant123/migration"
        self.real.wait_until(
            lambda: self.told(200, "GET", path)["phase"] == "done", "the move", 60.0
        )
        shown = self.told(200, "GET", path)["routes"]
        self.assertEqual(
            [(route["nodeID"], route["priority"]) for route in shown], [(target, 1), (source, 0)]
        )
        self.assertEqual(self.real.ask_tenant("tenant123", "GET", "/api/health").status, 200)
        after = self.routes()[self.made["id"]]
        self.assertEqual((before["nodeID"], after["nodeID"]), (source, target))
        self.assertGreater(after["epoch"], before["epoch"])

    def node_fails_and_returns(self) -> None:
        owner = self.told(200, "GET", "/tenants/tenant123")["nodeID"]
        self.real.kill9(owner)
        killed = time.monotonic()
        self.real.wait_tenant("tenant123")
        self.assertNotEqual(self.told(200, "GET", "/tenants/tenant123")["nodeID"], owner)
        self.real.wait_until(lambda: self.status(owner) == "down", "the node to be down", 40.0)
        # Fifteen seconds after its last heartbeat, which may have been five before its death.
        self.assertGreater(time.monotonic() - killed, 9.0)
        self.assertNotIn(owner, [row["nodeID"] for row in self.routes().values()])
        self.real.start(owner)
        self.real.wait_until(lambda: self.status(owner) == "healthy", "the node's return", 20.0)
        self.assertEqual(self.told(200, "GET", f"/nodes/{owner}")["incarnation"], 2)

    def status(self, node_id: str) -> str:
        return str(self.told(200, "GET", f"/nodes/{node_id}")["status"])

    def ends(self) -> None:
        path = f"/tenants/{self.made['id']}"
        self.assertEqual(self.cp("DELETE", path).status, 400)
        deleted = self.told(200, "DELETE", f"{path}?confirm={self.made['id']}&wait=30")
        self.assertEqual(deleted["status"], "deleted")
        self.assertEqual(self.real.ask_tenant("tenant123", "GET", "/api/health").status, 404)
        self.assertEqual(self.cp("GET", "/tenants/tenant123").status, 404)
