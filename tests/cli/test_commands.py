"""The commands as a user types them, against a fake admin API."""

import json
import os
import stat
import subprocess
import sys

import attrs
from click.testing import CliRunner, Result

from pbcluster.cli import demo, initialise
from pbcluster.cli.initialise import Wish
from pbcluster.cli.layout import Plan, Process
from pbcluster.cli.main import cli
from tests.cli.fake_admin import FakeCluster
from tests.cli.support import DirectoryTestCase


class CommandTestCase(DirectoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        plan = initialise.initialise(self.where, Wish(gateway_port=0, admin_port=0))
        self.fake = FakeCluster(self.where.token())
        self.addCleanup(self.fake.close)
        initialise.write_all(self.where, self.pointed_at_fake(plan))

    def pointed_at_fake(self, plan: Plan) -> Plan:
        """Gateway and admin API are the fake's one port."""

        def turn(process: Process) -> Process:
            public = {"gateway": "http", "member": "admin"}.get(process.kind)
            more = {public: self.fake.port} if public else {}
            return attrs.evolve(process, ports=process.ports | more)

        return attrs.evolve(plan, processes=tuple(map(turn, plan.processes)))

    def run_cli(self, *arguments: str, given: str | None = None) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--dir", str(self.where.root)], input=given)

    def fails(self, status: int, *arguments: str, given: str | None = None) -> str:
        """One sentence, the exit code, no traceback."""
        result = self.run_cli(*arguments, given=given)
        self.assertEqual(result.exit_code, status, result.output)
        self.assertIsInstance(result.exception, SystemExit)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)
        self.assertNotIn("Traceback", result.output)
        return result.stderr


class TenantTests(CommandTestCase):
    def test_create(self) -> None:
        """create returns when the tenant answers, and shows the generated password once."""
        self.fake.unready_answers = 3
        result = self.run_cli("tenants", "create", "shop", "--superuser", "me@example.com")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(self.fake.unready_answers, 0)
        self.assertIn(f"http://shop.localhost:{self.fake.port}/_/", result.stdout)
        self.assertEqual(result.stdout.count(self.fake.passwords["shop"]), 1)
        self.assertGreaterEqual(len(self.fake.passwords["shop"]), 16)

    def test_create_with_given_password(self) -> None:
        """--password-stdin takes the first line and never prints it."""
        result = self.run_cli(
            *("tenants", "create", "shop", "--superuser", "me@example.com"),
            *("--password-stdin", "--json"),
            given="correct horse\nmore",
        )
        self.assertEqual(self.fake.passwords["shop"], "correct horse")
        found = json.loads(result.stdout)
        self.assertEqual((found["name"], found["superuser"]), ("shop", "me@example.com"))
        self.assertNotIn("correct horse", result.output)

    def test_bad_input(self) -> None:
        """A bad name gets the rule, an empty password and a forgotten option a sentence."""
        create = ("tenants", "create")
        self.assertIn("lower-case", self.fails(2, *create, "Bad", *SUPERUSER))
        text = self.fails(2, *create, "shop", *SUPERUSER, "--password-stdin", given="\n")
        self.assertIn("no password", text)
        result = self.run_cli(*create, "shop")
        self.assertEqual(result.exit_code, 2)
        self.assertIn("--superuser", result.stderr)

    def test_refusals_of_the_api(self) -> None:
        """What the API refuses is its sentence with exit code 1, or 2 where input is wrong."""
        for api, exit_code in ((400, 2), (409, 1), (503, 1), (500, 1)):
            self.fake.refuse = (api, {"status": api, "message": f"Because {api}.", "data": {}})
            text = self.fails(exit_code, "tenants", "create", "shop", *SUPERUSER)
            self.assertIn(f"Because {api}.", text)

    def test_field_errors(self) -> None:
        """A field's own message, as PocketBase nests it, is not lost."""
        data = {"password": {"code": "invalid", "message": "Too short."}}
        self.fake.refuse = (400, {"status": 400, "message": "Failed.", "data": data})
        text = self.fails(2, "tenants", "create", "shop", *SUPERUSER)
        self.assertIn("Failed. (password: Too short.)", text)

    def test_wrong_token(self) -> None:
        """A wrong admin token is told, and the token itself is not."""
        self.where.token_file.write_text("wrong-token\n")
        text = self.fails(1, "tenants", "list")
        self.assertIn("token is missing or wrong", text)
        self.assertNotIn("wrong-token", text)

    def test_not_running(self) -> None:
        """Without a cluster that answers, the address is named."""
        self.fake.close()
        text = self.fails(1, "tenants", "list")
        self.assertIn(f"no answer from http://127.0.0.1:{self.fake.port}", text)
        self.fake = FakeCluster("")

    def test_list_is_whole(self) -> None:
        """list goes through all pages."""
        for name in ("a", "b", "c", "d", "e"):
            self.run_cli("tenants", "create", name, *SUPERUSER)
        found = json.loads(self.run_cli("tenants", "list", "--json").stdout)
        self.assertEqual([tenant["name"] for tenant in found], ["a", "b", "c", "d", "e"])
        self.assertIn("http://e.localhost", self.run_cli("tenants", "list").stdout)

    def test_show_by_name_and_id(self) -> None:
        """show takes a name or an id; an unknown one is the API's sentence."""
        self.run_cli("tenants", "create", "shop", *SUPERUSER)
        by_name = json.loads(self.run_cli("tenants", "show", "shop", "--json").stdout)
        by_id = json.loads(self.run_cli("tenants", "show", by_name["id"], "--json").stdout)
        self.assertEqual(by_name, by_id)
        self.assertIn("no tenant 'nobody'", self.fails(1, "tenants", "show", "nobody"))

    def test_set_quotas(self) -> None:
        """set changes what is given and nothing else, by any number of options; 0 is a default."""
        self.run_cli("tenants", "create", "shop", "--superuser", "me@example.com")
        more = ("--requests-per-second", "12.5", "--concurrent-requests", "7", "--burst", "0")
        result = self.run_cli("tenants", "set", "shop", *more)
        self.assertEqual(result.exit_code, 0, result.output)
        (tenant,) = self.fake.tenants.values()
        expected = {
            "burst": 0,
            "eventStreams": 0,
            "requestsPerSecond": 12.5,
            "concurrentRequests": 7,
        }
        self.assertEqual(tenant["quotas"], expected)
        self.assertIn("12.5", result.stdout)
        shown = self.run_cli("tenants", "set", "shop", "--max-body-bytes", "9", "--json")
        self.assertEqual(json.loads(shown.stdout)["quotas"], expected | {"maxBodyBytes": 9})

    def test_durability(self) -> None:
        """create and set take what a write's acknowledgement means, and show what is wished for."""
        chosen = ("--durability", "async", "--durable-reads", "on", "--on-s3-outage", "reject")
        self.run_cli("tenants", "create", "shop", "--superuser", "me@example.com", *chosen)
        (tenant,) = self.fake.tenants.values()
        names = ("durability", "durableReads", "onS3Outage")
        self.assertEqual([tenant[name] for name in names], ["async", True, "reject"])
        result = self.run_cli("tenants", "set", "shop", "--durable-reads", "off")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual([tenant[name] for name in names], ["async", False, "reject"])
        self.assertEqual(tenant["quotas"]["burst"], 3)
        self.assertIn("durableReads", result.stdout)
        self.assertIn("'perhaps' is not", self.refuses("--durability", "perhaps"))
        self.assertIn("'maybe' is not", self.refuses("--durable-reads", "maybe"))

    def refuses(self, *options: str) -> str:
        result = self.run_cli("tenants", "set", "shop", *options)
        self.assertEqual(result.exit_code, 2)
        return result.output

    def test_give_away(self) -> None:
        """Nothing is lost on purpose without saying so."""
        self.assertIn("--accept-loss", self.fails(2, "tenants", "give-away", "shop"))
        result = self.run_cli("tenants", "give-away", "shop", "--accept-loss")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertIn("node_1", result.stdout)

    def test_set_meets_another_change(self) -> None:
        """A record that somebody else changed is read again, so that their change stays; not for
        ever."""
        self.run_cli("tenants", "create", "shop", "--superuser", "me@example.com")
        self.fake.meddling = 2
        result = self.run_cli("tenants", "set", "shop", "--burst", "9")
        self.assertEqual(result.exit_code, 0, result.output)
        (tenant,) = self.fake.tenants.values()
        self.assertEqual((tenant["quotas"]["burst"], tenant["quotas"]["memoryBytes"]), (9, 5))
        self.fake.meddling = 1000
        self.assertIn("changed", self.fails(1, "tenants", "set", "shop", "--burst", "8"))

    def test_set_refuses(self) -> None:
        """Nothing to set, a number that is none or below 0, and an unknown tenant are told."""
        self.assertIn("--requests-per-second", self.fails(2, "tenants", "set", "shop"))
        for option, value in (
            ("--burst", "-1"),
            ("--burst", "1.5"),
            ("--requests-per-second", "-0.1"),
            ("--requests-per-second", "nan"),
            ("--requests-per-second", "inf"),
            ("--concurrent-requests", "many"),
        ):
            result = self.run_cli("tenants", "set", "shop", option, value)
            self.assertEqual(result.exit_code, 2, (option, value))
            self.assertIn(option.strip("-"), result.output)
        self.assertIn("no tenant", self.fails(1, "tenants", "set", "shop", "--burst", "1"))

    def test_delete_asks(self) -> None:
        """delete without --yes and without a terminal deletes nothing."""
        self.run_cli("tenants", "create", "shop", *SUPERUSER)
        self.assertIn("--yes", self.fails(2, "tenants", "delete", "shop"))
        self.assertEqual(len(self.fake.tenants), 1)
        result = self.run_cli("tenants", "delete", "shop", "--yes", "--json")
        self.assertTrue(json.loads(result.stdout)["deleted"])
        self.assertEqual(self.fake.tenants, {})

    def test_archive_and_activate(self) -> None:
        """Each says what the tenant is now; a tenant that is not there is named."""
        self.run_cli("tenants", "create", "shop", *SUPERUSER)
        result = self.run_cli("tenants", "archive", "shop")
        self.assertIn("archived shop (tenant_", result.stdout)
        result = self.run_cli("tenants", "archive", "shop", "--json")
        self.assertTrue(json.loads(result.stdout)["archived"])
        result = self.run_cli("tenants", "activate", "shop")
        self.assertIn("is idle; its next request wakes it", result.stdout)
        result = self.run_cli("tenants", "activate", "shop", "--json")
        self.assertEqual(json.loads(result.stdout)["status"], "idle")
        self.assertIn("nix", self.fails(1, "tenants", "archive", "nix"))

    def test_purge_now(self) -> None:
        """The admin API is told; a tenant that is deleted already is named by its id."""
        self.run_cli("tenants", "create", "shop", *SUPERUSER)
        self.run_cli("tenants", "delete", "shop", "--yes", "--purge-now")
        self.assertEqual(self.fake.purged, ["now"])
        gone = "tenant_aaaaaaaaaa"
        self.assertIn("There is no tenant", self.fails(1, "tenants", "delete", gone, "--yes"))
        self.fails(1, "tenants", "delete", gone, "--yes", "--purge-now")
        self.assertEqual(self.fake.purged, ["now", "now"])

    def test_nodes(self) -> None:
        """nodes list shows what the control plane says."""
        self.assertEqual(
            json.loads(self.run_cli("nodes", "list", "--json").stdout)[0]["id"], "node_1"
        )
        self.assertIn("1/200", self.run_cli("nodes", "list").stdout)


SUPERUSER = ("--superuser", "me@example.com")


class ClusterCommandTests(CommandTestCase):
    def test_status_of_a_stopped_cluster(self) -> None:
        """status --json has the promised keys, and says that nothing runs."""
        found = json.loads(self.run_cli("status", "--json").stdout)
        self.assertEqual(list(found), ["gateway", "admin", "base_domain", "processes"])
        keys = ["kind", "id", "pid", "address", "admin", "state", "leader"]
        kinds = set()
        for process in found["processes"]:
            self.assertEqual(list(process), keys)
            self.assertEqual((process["pid"], process["state"]), (None, "stopped"))
            self.assertEqual(process["admin"] is not None, process["kind"] == "member")
            kinds.add(process["kind"])
        self.assertEqual(kinds, {"s3", "member", "node", "gateway"})
        self.assertIn("stopped", self.run_cli("status").stdout)

    def test_down_of_a_stopped_cluster(self) -> None:
        """down where nothing runs says so and is no failure."""
        result = self.run_cli("down")
        self.assertEqual(result.exit_code, 0)
        self.assertIn("nothing", result.stdout)

    def test_port_in_use(self) -> None:
        """up with a port in use is one sentence with port and option."""
        text = self.fails(2, "up")
        self.assertIn(f"port {self.fake.port} ", text)
        self.assertIn("-port", text)
        self.assertNotIn("Traceback", text)

    def test_no_cluster(self) -> None:
        """Every command on a directory without a cluster says how to make one."""
        for command in (["status"], ["down"], ["tenants", "list"], ["nodes", "list"]):
            result = CliRunner().invoke(cli, [*command, "--dir", str(self.root / "none")])
            self.assertEqual(result.exit_code, 2)
            self.assertIn("pbcluster init", result.stderr)

    def test_init(self) -> None:
        """init prints what it made; a second time it refuses."""
        arguments = ["init", "--dir", str(self.root / "new"), "--gateway-port", "0", "--json"]
        arguments += ["--admin-port", "0", "--nodes", "3"]
        found = json.loads(CliRunner().invoke(cli, arguments).stdout)
        self.assertEqual(sum(p["kind"] == "node" for p in found["processes"]), 3)
        self.assertEqual(CliRunner().invoke(cli, arguments).exit_code, 2)

    def test_help(self) -> None:
        """Every command has a help text, and the main ones show an example."""
        for command in ([], ["init"], ["up"], ["tenants", "create"]):
            text = CliRunner().invoke(cli, [*command, "--help"]).stdout
            self.assertIn("pbcluster", text.replace("Usage: pbcluster", ""), command)

    def test_module_runs(self) -> None:
        """The command runs by `python -m` and ends with the exit code of its failure."""
        process = subprocess.run(
            [sys.executable, "-m", "pbcluster.cli.main", "status", "--dir", str(self.root / "no")],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        )
        self.assertEqual(process.returncode, 2)
        self.assertNotIn("Traceback", process.stderr)
        self.assertEqual(len(process.stderr.splitlines()), 1)


class DemoTests(CommandTestCase):
    def test_login_is_kept(self) -> None:
        """The demo login is made once, kept privately, and the same at the next run."""
        plan = self.where.load_plan()
        first = demo.ensure(self.where, plan)
        self.assertEqual(first.password, self.fake.passwords["demo"])
        self.assertEqual(stat.S_IMODE(self.where.demo_file.stat().st_mode), 0o600)
        self.fake.refuse = (409, {"status": 409, "message": "The name is taken.", "data": {}})
        self.assertEqual(demo.ensure(self.where, plan), first)
        text = first.text(self.where)
        for part in (first.password, first.dashboard, f"--dir {os.path.relpath(self.where.root)}"):
            self.assertIn(part, text)

    def test_foreign_demo(self) -> None:
        """A tenant demo that somebody else made is used, and no password is invented for it."""
        self.fake.tenants["tenant_1"] = {"id": "tenant_1", "name": "demo"}
        self.fake.refuse = (409, {"status": 409, "message": "The name is taken.", "data": {}})
        found = demo.ensure(self.where, self.where.load_plan())
        self.assertEqual(found.password, "")
        self.assertFalse(self.where.demo_file.exists())
        self.assertIn("set when the tenant was created", found.text(self.where))
