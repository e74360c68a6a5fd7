"""Operators in a tenant of a real cluster: logins, what it printed, how much it stores."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

from pbcluster.cli.http import Answer
from pbcluster.testing.cluster import RealCluster
from tests.integration.support import EMAIL, PASSWORD
from tests.integration.test_crossing import CrossingTestCase

PROGRAM = (sys.executable, "-m", "pbcluster.cli.main")
AUTH = "/api/collections/_superusers/auth-with-password"
LOGIN = "/api/pbcluster/login"
HOOK = """
routerAdd("GET", "/api/print", (e) => {
  console.log("Authorization: Bearer hidden \\x1b[31m" + e.request.url.query().get("word"));
  return e.json(200, {});
});
"""


class InsideCase(CrossingTestCase):
    def command(
        self, cluster: RealCluster, *arguments: str, fails: bool = False
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*PROGRAM, *arguments, "--dir", str(cluster.where.root)],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        self.assertEqual(done.returncode != 0, fails, done.stdout + done.stderr + cluster.logs())
        return done

    def json(self, cluster: RealCluster, *arguments: str) -> Any:
        return json.loads(self.command(cluster, *arguments, "--json").stdout)

    def ask(
        self, cluster: RealCluster, method: str, path: str, token: str = "", body: Any = None
    ) -> Answer:
        headers = {"Authorization": token} if token else {}
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        return cluster.ask_tenant("shop", method, path, headers=headers, body=content)

    def everything_logged(self, cluster: RealCluster) -> str:
        return "".join(
            path.read_text("utf-8", "replace") for path in cluster.where.root.glob("log/*")
        )


class LoginTests(InsideCase):
    def test_an_operator_signs_in(self) -> None:
        """A login is given for a tenant that runs, that sleeps, and whose node just died; the audit
        trail tells of each; the token is in no log; a name that nobody has, and a tenant that is
        not there, are told; and no client reaches the route that mints it."""
        cluster = self.cluster(nodes=2, node={"idle_stop_s": 1.5})
        cluster.create_tenant("shop", EMAIL, PASSWORD)
        found = self.json(cluster, "tenants", "login", "shop", "--minutes", "5")
        self.assertEqual(found["email"], EMAIL)
        self.assertEqual(self.ask(cluster, "GET", "/api/settings", found["token"]).status, 200)

        cluster.wait_until(
            lambda: cluster.admin.tenant("shop")["status"] == "idle", "the tenant to sleep"
        )
        shown = self.command(cluster, "tenants", "login", "shop", "--as", EMAIL).stdout
        self.assertIn("shop.localhost", shown)
        token = next(line.split()[1] for line in shown.splitlines() if line.startswith("token"))
        self.assertEqual(self.ask(cluster, "GET", "/api/settings", token).status, 200)

        for name in ("nobody@example.com", "x'\x1b[31m"):
            refused = self.command(cluster, "tenants", "login", "shop", "--as", name, fails=True)
            self.assertIn("has no superuser", refused.stderr)
            self.assertNotIn(EMAIL, refused.stderr)
            self.assertNotIn("\x1b", refused.stderr)
        refused = self.command(cluster, "tenants", "login", "none", fails=True)
        self.assertIn("no tenant 'none'", refused.stderr)

        cluster.kill9(self.owner(cluster, "shop"))
        again = self.json(cluster, "tenants", "login", "shop")
        self.assertEqual(self.ask(cluster, "GET", "/api/settings", again["token"]).status, 200)

        self.check_audit(cluster)
        logged = self.everything_logged(cluster)
        self.assertIn("/login", logged)
        for each in (found["token"], token, again["token"]):
            self.assertNotIn(each.rpartition(".")[2], logged)
        for path in (LOGIN, "//api//pbcluster/login", "/api/%70bcluster/login", "/API/PBCluster/x"):
            answer = self.ask(cluster, "POST", path, token, {"seconds": 60})
            self.assertEqual(answer.status, 404, path)
            self.assertNotIn(b"eyJ", answer.body)

    def check_audit(self, cluster: RealCluster) -> None:
        trail = cluster.admin.request("GET", "/audit?perPage=100")["items"]
        logins = [entry for entry in trail if entry["action"] == "tenant.login"]
        details = [entry["detail"] for entry in logins[::-1]]
        self.assertEqual(details[0], "as its first superuser for 300 s")
        self.assertEqual(details[1], f"as {EMAIL} for 900 s")
        self.assertEqual(len(details), 5)
        self.assertEqual({entry["actor"] for entry in logins}, {"admin"})
        self.assertEqual({entry["address"] for entry in logins}, {"127.0.0.1"})
        self.assertEqual({e["target"] for e in logins}, {cluster.admin.tenant("shop")["id"]})


class LogTests(InsideCase):
    def test_what_a_tenant_printed(self) -> None:
        """Lines come through gateway-less ways only, without tokens and control characters; one who
        follows sees what is printed next, on the node that takes over too."""
        cluster = self.cluster(nodes=2)
        cluster.create_tenant("shop", EMAIL, PASSWORD)
        for node in cluster.ids("node"):
            tenant = cluster.admin.tenant("shop")["id"]
            hooks = cluster.where.data(node) / "tenants" / tenant / "hooks"
            hooks.mkdir(parents=True, exist_ok=True)
            (hooks / "tenant.pb.js").write_text(HOOK)
        shown = self.command(cluster, "tenants", "logs", "shop").stdout
        self.assertIn("Server started", shown)
        # With the hook from its next start on: on the other node.
        first = self.owner(cluster, "shop")
        with Following(cluster) as following:
            following.wait_for("Server started")
            cluster.kill9(first)
            cluster.wait_tenant("shop")
            self.ask(cluster, "GET", "/api/print?word=later")
            following.wait_for("later")
            self.assertIn(f"the tenant is on {self.owner(cluster, 'shop')} now", following.errors())
        lines = "".join(following.lines)
        self.assertIn("Authorization: [token]", lines)
        self.assertNotIn("hidden", lines)
        self.assertNotIn("\x1b", lines)
        (last,) = self.command(cluster, "tenants", "logs", "shop", "-n", "1").stdout.splitlines()
        self.assertIn("later", last)
        actions = [e["action"] for e in cluster.admin.request("GET", "/audit")["items"]]
        self.assertEqual(actions.count("tenant.logs"), 3)


class Following:
    """``pbcluster tenants logs shop -f`` in a process of its own."""

    def __init__(self, cluster: RealCluster) -> None:
        self.lines: list[str] = []
        self._errors: list[str] = []
        self._more = threading.Condition()
        self._process = subprocess.Popen(
            [*PROGRAM, "tenants", "logs", "shop", "-f", "--dir", str(cluster.where.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream, into))
            for stream, into in (
                (self._process.stdout, self.lines),
                (self._process.stderr, self._errors),
            )
        ]

    def _read(self, stream: Any, into: list[str]) -> None:
        for line in stream:
            with self._more:
                into.append(line)
                self._more.notify()

    def wait_for(self, word: str) -> None:
        with self._more:
            seen = self._more.wait_for(lambda: any(word in line for line in self.lines), 60.0)
        assert seen, (word, self.lines, self._errors)

    def errors(self) -> str:
        return "".join(self._errors)

    def __enter__(self) -> Following:
        for reader in self._readers:
            reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        for reader in self._readers:
            reader.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()


class StorageTests(InsideCase):
    def test_a_full_database(self) -> None:
        """A quota below what is used is accepted and reported; from then on writes are 507 in
        PocketBase's form, while signing in, reads and DELETE go on; what is deleted makes room, and
        a larger quota does too. What it uses is shown."""
        cluster = self.cluster(nodes=1)
        cluster.create_tenant("shop", EMAIL, PASSWORD)
        token = self.sign_in(cluster)
        fields = [{"name": "word", "type": "text", "max": 100_000}]
        words = {"name": "words", "type": "base", "fields": fields}
        self.assertEqual(self.ask(cluster, "POST", "/api/collections", token, words).status, 200)
        records = "/api/collections/words/records"
        big = {"word": "x" * 90_000}
        ids = [
            json.loads(self.ask(cluster, "POST", records, token, big).body)["id"] for _ in range(60)
        ]
        quota = 4_000_000
        shown = self.command(
            cluster, "tenants", "set", "shop", "--max-db-bytes", str(quota), "--logs", "info"
        )
        self.assertIn("info", shown.stdout)

        def full() -> bool:
            return self.ask(cluster, "POST", records, token, {"word": "y"}).status == 507

        cluster.wait_until(full, "the quota to be met", 20.0)
        refused = self.ask(cluster, "PATCH", f"{records}/{ids[0]}", token, {"word": "z"})
        body = json.loads(refused.body)
        self.assertEqual((refused.status, body["status"]), (507, 507))
        self.assertEqual(body["data"]["code"], "storage_full")
        self.assertEqual(body["data"]["max_bytes"], quota)
        self.assertGreater(body["data"]["used_bytes"], quota)
        self.assertIn("VACUUM", body["message"])
        self.assertNotIn("x-pbcluster-not-processed", refused.headers)
        self.assertEqual(self.sign_in(cluster).count("."), 2)
        self.assertEqual(self.ask(cluster, "GET", records, token).status, 200)
        cluster.wait_until(
            lambda: bool(cluster.admin.tenant("shop")["overQuota"]), "a heartbeat with its use"
        )
        found = self.json(cluster, "tenants", "show", "shop")
        self.assertGreater(found["usage"]["dbBytes"], quota)
        self.assertEqual(found["overQuota"]["maxDbBytes"]["quota"], quota)

        for each in ids:
            gone = self.ask(cluster, "DELETE", f"{records}/{each}", token)
            self.assertEqual(gone.status, 204, gone.body)
        cluster.wait_until(lambda: not full(), "room after the deletion", 20.0)
        self.json(cluster, "tenants", "set", "shop", "--max-db-bytes", "1")
        cluster.wait_until(full, "a quota that nothing fits", 20.0)
        self.json(cluster, "tenants", "set", "shop", "--max-db-bytes", "0")
        cluster.wait_until(lambda: not full(), "the platform's default", 20.0)

    def sign_in(self, cluster: RealCluster) -> str:
        body = {"identity": EMAIL, "password": PASSWORD}
        answer = self.ask(cluster, "POST", AUTH, "", body)
        self.assertEqual(answer.status, 200, answer.body)
        token: str = json.loads(answer.body)["token"]
        return token
