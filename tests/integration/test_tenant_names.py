"""How a request names its tenant, on real processes: tokens, X-Tenant-ID, custom domains.

A hook in each tenant's PocketBase answers ``/echo`` with the header fields that came to it.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import platform_tokens
from pbcluster.cli import procfs
from pbcluster.cli.http import Answer, ask
from pbcluster.cli.main import cli
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client
from tests.integration.support import EMAIL, PASSWORD

ECHO = """
routerAdd("GET", "/echo", (e) => e.json(200, {
    name: "NAME", host: e.request.host, headers: e.request.header,
}))
"""


class TenantNamesCase(SynchronousTestCase):
    timeout = 180

    def setUp(self) -> None:
        self.cluster = RealCluster(
            nodes=1, settings={"gateway": {"trusted_networks": ["127.0.0.0/8"]}}
        )
        self.addCleanup(self.cluster.close)
        self.cluster.start()
        for name in ("shop", "other"):
            self.cluster.create_tenant(name, EMAIL, PASSWORD)
            self.give_hook(name)

    def give_hook(self, name: str) -> None:
        """PocketBase reads its hooks when it starts: end it, the node starts it again."""
        node = self.cluster.ids("node")[0]
        tenant = self.cluster.admin.tenant(name)["id"]
        home = self.cluster.where.data(node) / "tenants" / tenant
        (home / "hooks" / "echo.pb.js").write_text(ECHO.replace("NAME", name))
        for who in self.cluster.children_of(node):
            if f"{tenant}/hooks".encode() in Path(f"/proc/{who.pid}/cmdline").read_bytes():
                procfs.send(who, signal.SIGKILL)
        self.cluster.wait_until(
            lambda: self.get("/echo", Host=self.cluster.host(name)).status == 200, "the hook"
        )

    def run_cli(self, *arguments: str) -> Any:
        command = [*arguments, "--json", "--dir", str(self.cluster.where.root)]
        done = CliRunner().invoke(cli, command)
        self.assertEqual(done.exit_code, 0, done.output)
        return json.loads(done.stdout)

    def get(self, path: str, **headers: str) -> Answer:
        """A request by the gateway's address: its Host names no tenant unless one is given."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return ask("GET", self.cluster.gateway_url + path, headers=sent, timeout_s=40)

    def echo(self, **headers: str) -> dict[str, Any]:
        """What PocketBase saw."""
        answer = self.get("/echo", **headers)
        self.assertEqual(answer.status, 200, answer.body)
        seen: dict[str, Any] = json.loads(answer.body)
        self.assertNotIn(platform_tokens.PREFIX, answer.body)
        self.assertNotIn("X-Tenant-Id", seen["headers"])
        return seen

    def status_becomes(self, status: int, path: str, **headers: str) -> None:
        self.cluster.wait_until(
            lambda: self.get(path, **headers).status == status, f"{status} of {path}", 10.0
        )


class TokenTests(TenantNamesCase):
    def test_tokens(self) -> None:
        """A token leads to its tenant's PocketBase, which sees its own token and never ours; a
        rotation leaves it valid, the leader's death too; without a control plane it goes on; and
        ``rotate --now`` ends it."""
        issued = self.run_cli("tokens", "issue", "shop", "--expires", "10m")
        bearer = f"Bearer {issued['token']}"
        client = Client(self.cluster.gateway_url, self.cluster.host("shop"))
        client.sign_in(EMAIL, PASSWORD)
        own = client.token

        seen = self.echo(Authorization=bearer, X_PocketBase_Authorization=own)
        self.assertEqual((seen["name"], seen["host"]), ("shop", self.cluster.host("shop")))
        self.assertEqual(seen["headers"]["Authorization"], [own])
        self.assertNotIn("X-Pocketbase-Authorization", seen["headers"])
        self.assertIn("127.0.0.1", seen["headers"]["X-Forwarded-Host"][0])
        seen = self.echo(Authorization=bearer)
        self.assertNotIn("Authorization", seen["headers"])
        # PocketBase takes its own token, and only that.
        records = "/api/collections/_superusers/records"
        admin = {"Authorization": bearer, "X_PocketBase_Authorization": own}
        self.assertEqual(self.get(records, **admin).status, 200)
        self.assertEqual(self.get(records, Authorization=bearer).status, 403)
        # By Host PocketBase's token goes where it always did; ours goes to its own tenant only.
        seen = self.echo(Host=self.cluster.host("shop"), Authorization=f"Bearer {own}")
        self.assertEqual(seen["headers"]["Authorization"], [f"Bearer {own}"])
        self.assertEqual(
            self.echo(Host=self.cluster.host("shop"), Authorization=bearer)["name"], "shop"
        )
        wrong = self.get("/echo", Host=self.cluster.host("other"), Authorization=bearer)
        self.assertEqual(wrong.status, 400)
        # Nothing at all names a tenant; PocketBase's token is none of ours.
        self.assertEqual(self.get("/echo").status, 404)
        refused = self.get("/echo", Authorization=f"Bearer {own}")
        self.assertEqual(refused.status, 401)
        self.assertIn("invalid_token", refused.headers["www-authenticate"])

        self.rotate(issued, bearer)
        self.fail_over(issued, bearer)

    def rotate(self, issued: dict[str, str], bearer: str) -> None:
        self.run_cli("tokens", "rotate")
        listed = self.run_cli("tokens", "keys")
        self.assertEqual([key["status"] for key in listed], ["signs", "verifies"])
        self.assertEqual(listed[1]["kid"], issued["kid"])
        # The new one may come before the gateway knows its key.
        newer = self.run_cli("tokens", "issue", "other")
        self.assertEqual(self.echo(Authorization=f"Bearer {newer['token']}")["name"], "other")
        self.assertEqual(self.echo(Authorization=bearer)["name"], "shop")

    def fail_over(self, issued: dict[str, str], bearer: str) -> None:
        signs = self.run_cli("tokens", "keys")[0]["kid"]
        leader = next(m["id"] for m in self.cluster.admin.all("members") if m["role"] == "leader")
        self.cluster.kill9(leader)
        again = self.run_cli("tokens", "issue", "shop")
        self.assertEqual(again["kid"], signs)
        self.assertEqual(self.echo(Authorization=f"Bearer {again['token']}")["name"], "shop")
        made = self.run_cli("tokens", "rotate", "--now")
        for each in (bearer, f"Bearer {again['token']}"):
            self.status_becomes(401, "/echo", Authorization=each)
        last = f"Bearer {self.run_cli('tokens', 'issue', 'shop')['token']}"
        self.assertEqual(self.echo(Authorization=last)["name"], "shop")
        self.assertEqual([key["kid"] for key in self.run_cli("tokens", "keys")], [made["kid"]])
        # Nothing of a private key or a token is in any log, and no file is open to others.
        root = self.cluster.where.root
        text = b"".join(file.read_bytes() for file in (root / "log").iterdir())
        self.assertNotIn(platform_tokens.PREFIX, text)
        for file in (root / "data").glob("member_*/store/*"):
            self.assertEqual(file.stat().st_mode & 0o077, 0, file)
        for member in self.cluster.ids("member"):
            if member != leader:
                self.cluster.kill9(member)
        self.assertEqual(self.echo(Authorization=last)["name"], "shop")


class HostTests(TenantNamesCase):
    def test_custom_domains(self) -> None:
        """A domain answers once it is added, at gateway and node, and no more once it is
        removed; another tenant can have it then."""
        domain = "www.shop.example"
        self.assertEqual(self.get("/echo", Host=domain).status, 404)
        self.run_cli("tenants", "domains", "add", "shop", domain)
        self.status_becomes(200, "/echo", Host=domain)
        seen = self.echo(Host="WWW.Shop.Example.:8080")
        self.assertEqual((seen["name"], seen["host"]), ("shop", "WWW.Shop.Example.:8080"))
        self.assertEqual(self.echo(Host=self.cluster.host("shop"))["name"], "shop")
        done = CliRunner().invoke(
            cli,
            ["tenants", "domains", "add", "other", domain, "--dir", str(self.cluster.where.root)],
        )
        self.assertEqual(done.exit_code, 1, done.output)
        self.assertIn("belongs to tenant 'shop'", done.stderr)
        self.run_cli("tenants", "domains", "remove", "shop", domain)
        self.status_becomes(404, "/echo", Host=domain)
        self.run_cli("tenants", "domains", "add", "other", domain)
        self.status_becomes(200, "/echo", Host=domain)
        self.assertEqual(self.echo(Host=domain)["name"], "other")

    def test_by_header(self) -> None:
        """X-Tenant-ID from a trusted network, as name or id; it must agree with the Host."""
        tenant = self.cluster.admin.tenant("shop")["id"]
        for value in ("shop", tenant):
            seen = self.echo(X_Tenant_ID=value)
            self.assertEqual((seen["name"], seen["host"]), ("shop", self.cluster.host("shop")))
        self.assertEqual(
            self.echo(Host="gw.internal.example", X_Tenant_ID="other")["name"], "other"
        )
        host = self.cluster.host("shop")
        self.assertEqual(self.get("/echo", Host=host, X_Tenant_ID="other").status, 400)
        self.assertEqual(self.get("/echo", X_Tenant_ID="nobody").status, 404)
        self.assertEqual(self.get("/echo", X_Tenant_ID="No/Body").status, 400)
