"""The front door of a real node with a real PocketBase, asked as a gateway asks, and as others."""

from __future__ import annotations

import json
import signal
import threading
import time
import tomllib
from typing import Any

from pbcluster import signing
from pbcluster.cli.http import Answer, ask
from pbcluster.signing import Signed, sign
from tests.integration.support import EMAIL, PASSWORD, put_hook
from tests.integration.test_crossing import CrossingTestCase

SLOW_S = 1.5
#: Shows what arrives, says what only the node may say, and takes its time.
HOOK = f"""
routerAdd("POST", "/api/echo", (e) => {{
  e.response.header().set("X-PBCluster-Not-Processed", "moved");
  e.response.header().set("X-PBCluster-Durability", "local");
  return e.json(200, e.requestInfo().headers);
}});
routerAdd("GET", "/api/slow", (e) => {{
  sleep({int(SLOW_S * 1000)});
  return e.json(200, {{ done: true }});
}});
"""


class NodeHttpTests(CrossingTestCase):
    def setUp(self) -> None:
        self.cluster_ = self.cluster(nodes=1)
        self.cluster_.create_tenant("shop", EMAIL, PASSWORD)
        self.tenant = self.cluster_.admin.tenant("shop")
        self.node = self.cluster_.ready("node_1")
        secrets = tomllib.loads(self.cluster_.where.secrets("node_1").read_text())
        self.key = secrets["gateway_keys"]["gateway_1"].encode()
        put_hook(self.cluster_, "shop", HOOK)

    def signed(self, method: str, path: str, **changed: Any) -> str:
        usual = {
            "gateway": "gateway_1",
            "tenant_id": self.tenant["id"],
            "epoch": self.tenant["epoch"],
            "at_ms": time.time_ns() // 1_000_000,
            "request_id": "r1",
        }
        what = Signed(**(usual | changed))
        return sign(self.key, method.encode(), path.encode(), what).decode()

    def ask(self, path: str, signature: str | None, method: str = "GET", **headers: str) -> Answer:
        sent = {"Host": "shop.localhost"} | {k.replace("_", "-"): v for k, v in headers.items()}
        if signature is not None:
            sent[signing.SIGNED.decode()] = signature
        return ask(method, self.node["node"] + path, headers=sent, timeout_s=30.0)

    def test_the_front_door(self) -> None:
        """Only what a gateway signed, for this method and target, a moment ago, once; for a tenant
        and an epoch that are here, under one of its names. All else is refused, with the mark that
        lets the gateway send it elsewhere. Health is told to anybody, figures on loopback only.
        What a client sends under the platform's names does not reach PocketBase, and what a
        tenant's hook answers under them does not leave the node.
        A request that is under way when SIGTERM comes gets its answer; one that comes after is sent
        back untouched; the node ends by itself, and says why it is not ready meanwhile."""
        path = "/api/health"
        good = self.signed("GET", path)
        self.assertEqual(self.ask(path, good).status, 200)
        old = self.signed("GET", path, at_ms=time.time_ns() // 1_000_000 - 60_000)
        refused = {
            "no signature": None,
            "damaged": good[:-1] + ("0" if good[-1] != "0" else "1"),
            "of another method": self.signed("POST", path),
            "of another target": self.signed("GET", "/api/settings"),
            "an old one": old,
            "of an unknown gateway": self.signed("GET", path, gateway="gateway_9"),
        }
        for what, signature in refused.items():
            answer = self.ask(path, signature)
            self.assertEqual(answer.status, 401, what)
            self.assertEqual(answer.headers["x-pbcluster-not-processed"], "unsigned", what)
        moved = {
            "a tenant that is not here": self.ask(
                path, self.signed("GET", path, tenant_id="tenant_" + "z" * 20)
            ),
            "a host that is not its own": self.ask(path, good, Host="other.localhost"),
        }
        for what, answer in moved.items():
            self.assertEqual(answer.status, 421, what)
            self.assertEqual(answer.headers["x-pbcluster-not-processed"], "moved", what)
        newer = self.ask(path, self.signed("GET", path, epoch=self.tenant["epoch"] + 1))
        self.assertEqual(newer.status, 503)
        self.assertEqual(newer.headers["x-pbcluster-not-processed"], "loading")

        self.check_own_pages()
        self.check_marks()
        self.check_sigterm()

    def check_own_pages(self) -> None:
        health = self.ask("/healthz", None)
        self.assertEqual((health.status, json.loads(health.body)), (200, {"status": "ok"}))
        self.assertEqual(self.ask("/metrics", None).status, 401)
        self.assertTrue(self.node["metrics"].startswith("http://127.0.0.1:"))
        metrics = ask("GET", self.node["metrics"] + "/metrics")
        self.assertIn(b"pbcluster_node_lease_age_seconds", metrics.body)

    def check_marks(self) -> None:
        path = "/api/echo"
        sent = {"X_PBCluster_Platform": "x", "x_pbcluster_anything": "y", "X_Mine": "z"}
        answer = self.ask(path, self.signed("POST", path), "POST", **sent)
        self.assertEqual(answer.status, 200, answer.body)
        seen = json.loads(answer.body)
        self.assertEqual(seen["x_mine"], "z")
        self.assertEqual([name for name in seen if "pbcluster" in name], [])
        # The node's own word about this write, whatever the hook said.
        marks = {name: word for name, word in answer.headers.items() if "pbcluster" in name}
        self.assertEqual(marks, {"x-pbcluster-durability": "s3"})

    def check_sigterm(self) -> None:
        path = "/api/slow"
        answers: list[Answer] = []
        slow = threading.Thread(
            target=lambda: answers.append(self.ask(path, self.signed("GET", path)))
        )
        slow.start()
        self.cluster_.wait_until(self.is_open, "the slow request to be handed over", 10.0)
        self.cluster_.child("node_1").send(signal.SIGTERM)
        self.cluster_.wait_until(self.drains, "the node to drain", 10.0)
        late = self.ask("/api/health", self.signed("GET", "/api/health"))
        self.assertEqual(late.status, 503)
        self.assertEqual(late.headers["x-pbcluster-not-processed"], "draining")
        slow.join(30.0)
        self.assertEqual([answer.status for answer in answers], [200], self.cluster_.logs())
        self.assertTrue(self.cluster_.child("node_1").wait(20.0))
        # So twistd ends when it has stopped everything; a node that hangs is killed by SIGKILL.
        self.assertEqual(self.cluster_.child("node_1").ended(), "killed by SIGTERM")

    def test_new_tenants_come_as_changes_of_the_list(self) -> None:
        """Not as whole lists, which each lease would repair them by: most are obeyed."""

        def told() -> dict[str, float]:
            page = ask("GET", self.node["metrics"] + "/metrics").body.decode()
            rows = (each.split() for each in page.splitlines() if each.startswith(CHANGES))
            return {name.removeprefix(CHANGES): float(value) for name, value in rows}

        before = told()
        for number in range(5):
            self.cluster_.create_tenant(f"more{number}", "a@example.com", "a long password")
        after = told()
        self.assertGreaterEqual(after["obeyed"] - before["obeyed"], 5)
        self.assertGreater(after["obeyed"] - before["obeyed"], after["refused"] - before["refused"])

    def is_open(self) -> bool:
        page = ask("GET", self.node["metrics"] + "/metrics").body.decode()
        (line,) = (each for each in page.splitlines() if each.startswith(OPEN))
        return float(line.split()[1]) > 0

    def drains(self) -> bool:
        page = ask("GET", self.node["metrics"] + "/readyz").body
        return b"being stopped" in page


CHANGES = "pbcluster_node_list_changes_"
OPEN = "pbcluster_node_open_requests "
