"""Who may do what, and who did it, on real processes: three members, a node and a gateway.

The admin APIs speak TLS here, to the command line and to each other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli.admin import AdminClient
from pbcluster.cli.http import Answer, Unreachable, ask
from pbcluster.cli.main import cli
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.soak_members import leader_of
from tests.integration.support import EMAIL, PASSWORD
from tests.web import pki


class AccessTests(SynchronousTestCase):
    timeout = 180

    def setUp(self) -> None:
        home = Path(self.mktemp()).absolute()
        home.mkdir(parents=True)
        self.ca, certificates = home / "ca.pem", home / "certificates"
        certificates.mkdir()
        self.ca.write_bytes(pki.issuer().certificate)
        self.certificate = certificates / "default.pem"
        self.renew()
        member = {"admin_tls": str(certificates), "admin_ca": str(self.ca)}
        logs = {"log_format": "json"}
        self.cluster = RealCluster(
            nodes=1, settings={"member": member | logs, "node": logs, "gateway": logs}
        )
        self.addCleanup(self.cluster.close)
        self.cluster.start()

    def renew(self) -> None:
        pair = pki.site("localhost", address="127.0.0.1")
        pki.write(self.certificate, pair.certificate + pair.key)

    def run_cli(self, *arguments: str, token: str = "") -> Any:
        command = [*arguments, "--json", "--dir", str(self.cluster.where.root)]
        with mock.patch.dict("os.environ", PBCLUSTER_API_TOKEN=token):
            done = CliRunner().invoke(cli, command)
        self.assertEqual(done.exit_code, 0, done.output)
        return json.loads(done.stdout)

    def at(self, number: int, method: str, path: str, token: str, body: Any = None) -> Answer:
        """Ask one member."""
        url = f"{self.cluster.plan.admin_urls[number]}/api/cp{path}"
        content = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}", "X-Request-Id": f"at-{number}"}
        return ask(method, url, headers=headers, body=content, timeout_s=20, ca=str(self.ca))

    def test_tokens_and_their_trail(self) -> None:
        """A token works at every member at once and nowhere once it is revoked; a change by way of
        any member is told with the client's address, token and request id; the trail and the
        tokens outlive the leader. Nothing is said without TLS, and nothing to who trusts another
        authority. A tenant answers at its new name, and no more at the old one."""
        made = self.run_cli("api-tokens", "create", "ci", "--role", "operator")
        viewer = self.run_cli("api-tokens", "create", "eye", "--role", "viewer")["token"]
        self.cluster.create_tenant("shop", EMAIL, PASSWORD)
        for number in range(3):
            body = {"metadata": {"by": number}}
            answer = self.at(number, "PUT", "/tenants/shop", made["token"], body)
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(answer.headers["x-request-id"], f"at-{number}")
            self.assertEqual(self.at(number, "PUT", "/tenants/shop", viewer, body).status, 403)
            self.assertEqual(self.at(number, "GET", "/tenants", viewer).status, 200)
            self.assertEqual(self.at(number, "GET", "/health", viewer).status, 200)
            self.assertEqual(self.at(number, "GET", "/tenants", "apitoken_1.x").status, 401)

        plain = self.cluster.plan.admin_urls[0].replace("https:", "http:")
        self.assertRaises(Unreachable, ask, "GET", f"{plain}/api/cp/health")
        secure = self.cluster.plan.admin_urls[0]
        self.assertRaises(Unreachable, ask, "GET", f"{secure}/api/cp/health")

        renamed = self.run_cli("tenants", "rename", "shop", "store")
        self.host_answers("store", 200)
        self.host_answers("shop", 404)

        self.cluster.kill9(leader_of(self.cluster))
        entries = self.run_cli("audit", "--filter", "action ~ 'tenant.'")
        self.assertEqual(
            [(e["actor"], e["address"], e["action"], e["requestID"]) for e in entries[1:4]],
            [(made["id"], "127.0.0.1", "tenant.update", f"at-{number}") for number in range(3)],
        )
        self.assertEqual(entries[4]["detail"], "from shop to store")
        self.assertEqual({entry["target"] for entry in entries}, {renamed["id"]})
        self.run_cli("api-tokens", "revoke", made["id"])
        urls = [url for url in self.cluster.plan.admin_urls if self.lives(url)]
        self.assertGreaterEqual(len(urls), 2)
        for url in urls:
            headers = {"Authorization": f"Bearer {made['token']}"}
            for path in ("/tenants", "/health"):
                answer = ask(
                    "GET", f"{url}/api/cp{path}", headers=headers, timeout_s=20, ca=str(self.ca)
                )
                self.assertEqual(answer.status, 401, path)

        for name in ("member_1", "node_1", "gateway_1"):
            self.check_log(name)

    def check_log(self, name: str) -> None:
        """Every line is an object that names its process, and none has a token."""
        lines = self.cluster.where.log(name).read_text().splitlines()
        own = [json.loads(line) for line in lines]
        self.assertGreater(len(own), 3)
        for line in own:
            # A gateway's lines of requests have a form of their own.
            self.assertEqual(line.get("service", name), name)
        self.assertNotIn(self.cluster.where.token(), "".join(lines))

    def lives(self, url: str) -> bool:
        try:
            return bool(AdminClient(url, self.cluster.where.token(), ca=str(self.ca)).health())
        except Exception:  # the one that was killed, unless it is back already
            return False

    def host_answers(self, name: str, status: int) -> None:
        def answered() -> bool:
            headers = {"Host": self.cluster.host(name)}
            url = f"{self.cluster.gateway_url}/api/health"
            return ask("GET", url, headers=headers, timeout_s=20).status == status

        self.cluster.wait_until(answered, f"{status} of {name}", 20.0)
