"""The life of a tenant on real parts: archive, activate, delete, purge; from client to S3."""

from __future__ import annotations

import json
from pathlib import Path

from pbcluster.cli.bucket import Bucket, bucket_of
from pbcluster.errors import Conflict, NotFound
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client
from tests.integration.support import EMAIL, PASSWORD, new_tenant
from tests.integration.test_crossing import CrossingTestCase

ROWS = "/api/collections/journal/records"


class LifeTests(CrossingTestCase):
    def owner_state(self, bucket: Bucket, tenant_id: str) -> str:
        body = bucket.get(f"tenants/{tenant_id}/owner.json")
        assert body is not None
        return str(json.loads(body)["state"])

    def copies(self, cluster: RealCluster, tenant_id: str) -> list[Path]:
        return list(cluster.where.root.glob(f"*/**/tenants/{tenant_id}/data"))

    def test_archive_activate_delete(self) -> None:
        """An archived tenant has a terminal owner object and no copy, and is answered 503 with the
        reason; activated, its next request finds all rows. A deleted one leaves a tombstone; its
        node may be dead; its objects go with --purge-now; one of the same name begins empty."""
        cluster = self.cluster(nodes=2)
        client = new_tenant(cluster, "shop")
        self.add_row(client, "kept")
        bucket = bucket_of(cluster.where, cluster.plan)
        tenant_id = cluster.admin.tenant("shop")["id"]
        archived = cluster.admin.archive_tenant("shop")
        self.assertEqual((archived["status"], archived["nodeID"]), ("archived", ""))
        self.assertEqual(self.owner_state(bucket, tenant_id), "archived")
        self.assertEqual(self.copies(cluster, tenant_id), [])
        for _ in range(2):  # asked of the control plane, then remembered by the gateway
            answer = cluster.ask_tenant("shop", "GET", "/api/health")
            self.assertEqual(answer.status, 503)
            self.assertIn("archived", json.loads(answer.body)["message"])
        self.assertRaises(Conflict, cluster.admin.create_tenant, "shop")

        self.assertEqual(cluster.admin.activate_tenant("shop")["status"], "idle")
        cluster.wait_tenant("shop")
        self.assertEqual(self.rows(client), ["kept"])
        self.add_row(client, "after")
        self.assertEqual(self.owner_state(bucket, tenant_id), "serving")
        client.close()

        owner = cluster.admin.tenant("shop")["nodeID"]
        cluster.kill9(owner)
        deleted = cluster.admin.delete_tenant("shop")
        self.assertEqual(deleted["status"], "deleted", cluster.logs())
        self.assertEqual(self.owner_state(bucket, tenant_id), "deleted")
        self.assertGreater(len(bucket.keys(f"tenants/{tenant_id}/")), 3)
        cluster.create_tenant("shop", EMAIL, PASSWORD)
        again = Client(cluster.gateway_url, cluster.host("shop"))
        again.sign_in(EMAIL, PASSWORD)
        self.assertEqual(again.ask("GET", ROWS)[0], 404)
        again.close()

        cluster.admin.delete_tenant(tenant_id, purge_now=True)
        tombstone = [f"tenants/{tenant_id}/owner.json"]
        cluster.wait_until(
            lambda: bucket.keys(f"tenants/{tenant_id}/") == tombstone, "the purge", 15.0
        )
        self.assertRaises(NotFound, cluster.admin.tenant, tenant_id)
        cluster.start(owner)
        cluster.wait_tenant("shop")
        self.assertEqual(bucket.keys(f"tenants/{tenant_id}/"), tombstone)

    def add_row(self, client: Client, value: str) -> None:
        self.assertEqual(client.ask("POST", ROWS, {"n": 1, "value": value})[0], 200)

    def rows(self, client: Client) -> list[str]:
        status, body = client.ask("GET", ROWS)
        self.assertEqual(status, 200, body)
        return [row["value"] for row in body["items"]]
