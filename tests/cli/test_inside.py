"""``tenants login|logs`` and ``tenants set --logs`` as a user types them, against a fake API."""

import json
from typing import Any

from pbcluster.cli import commands_inside
from pbcluster.cli.commands_inside import printable
from tests.cli.test_commands import CommandTestCase

TOKEN = "a.b.c"


class InsideCase(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.run_cli("tenants", "create", "shop", "--superuser", "me@example.com")
        self.bodies: list[Any] = []
        self.queries: list[dict[str, list[str]]] = []
        self.answers: list[Any] = []
        answer_otherwise = self.fake.admin

        def admin(method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
            if path.endswith(("/login", "/logs")):
                self.bodies.append(body)
                self.queries.append(query)
                return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            return answer_otherwise(method, path, query, body)

        self.fake.admin = admin  # type: ignore[method-assign]


class LoginTests(InsideCase):
    def setUp(self) -> None:
        super().setUp()
        found = {"token": TOKEN, "email": "me@example.com", "recordID": "abc"}
        self.answers = [(201, found | {"expires": "soon", "host": "shop.localhost"})]

    def test_login(self) -> None:
        """Token, dashboard and how to use them are shown; whose and how long is as asked."""
        result = self.run_cli(
            "tenants", "login", "shop", "--as", "me@example.com", "--minutes", "3"
        )
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(self.bodies, [{"email": "me@example.com", "expiresIn": 180}])
        self.assertIn(f"token      {TOKEN}   (shown only now, until soon)", result.stdout)
        self.assertIn("http://shop.localhost", result.stdout)
        self.assertIn('localStorage.setItem("__pb_superusers__/_"', result.stdout)
        shown = json.loads(self.run_cli("tenants", "login", "shop", "--json").stdout)
        self.assertEqual(shown["token"], TOKEN)
        self.assertTrue(shown["dashboard"].endswith("/_/"))
        self.assertEqual(self.bodies[1], {"email": "", "expiresIn": 900})

    def test_refusals(self) -> None:
        """A lifetime that is not allowed never leaves; what the API refuses is one sentence."""
        for minutes in ("0", "61", "x"):
            result = self.run_cli("tenants", "login", "shop", "--minutes", minutes)
            self.assertEqual(result.exit_code, 2)
        self.assertEqual(self.bodies, [])
        told = {"status": 404, "message": "the tenant has no superuser 'x'", "data": {}}
        self.answers = [(404, told)]
        self.assertIn("no superuser 'x'", self.fails(1, "tenants", "login", "shop", "--as", "x"))


class LogTests(InsideCase):
    def lines(self, *lines: str, cursor: str = "c", node: str = "node_1", missed: int = 0) -> Any:
        return 200, {"cursor": cursor, "lines": lines, "nodeID": node, "missed": missed}

    def test_the_last_lines(self) -> None:
        """Lines go to stdout, escaped whatever the node sent; -n says how many."""
        self.answers = [self.lines("t one", "t two\x1b[2J\u202e")]
        result = self.run_cli("tenants", "logs", "shop", "-n", "2")
        self.assertEqual(result.stdout, "t one\nt two\\x1b[2J\\u202e\n")
        self.assertEqual(self.queries[0]["most"], ["2"])
        result = self.run_cli("tenants", "logs", "shop", "--json")
        self.assertEqual(json.loads(result.stdout.splitlines()[0])["line"], "t one")
        for most in ("0", "501"):
            self.assertEqual(self.run_cli("tenants", "logs", "shop", "-n", most).exit_code, 2)

    def test_follow(self) -> None:
        """-f asks for what comes after each cursor; it tells what was missed, waits while a node is
        away, and ends with the tenant."""
        self.patch(commands_inside, "FOLLOW_POLL_S", 0.0)
        away = {"status": 503, "message": "node_1 does not answer", "data": {"code": "unavailable"}}
        gone = {"status": 404, "message": "tenant 'shop' is deleted", "data": {}}
        self.answers = [
            self.lines("t 1", cursor="c1"),
            self.lines("t 2", cursor="c2", missed=5),
            (503, away),
            (503, away),
            self.lines("t 3", cursor="d1", node="node_2"),
            (404, gone),
        ]
        result = self.run_cli("tenants", "logs", "shop", "-f")
        self.assertEqual(result.exit_code, 1)
        self.assertEqual(result.stdout, "t 1\nt 2\nt 3\n")
        after = [query.get("after", [""])[0] for query in self.queries]
        self.assertEqual(after, ["", "c1", "c2", "c2", "c2", "d1"])
        self.assertIn("5 lines were printed too fast", result.stderr)
        self.assertEqual(result.stderr.count("waiting: node_1 does not answer"), 1)
        self.assertIn("the tenant is on node_2 now", result.stderr)
        self.assertIn("is deleted", result.stderr)

    def test_follow_gives_up(self) -> None:
        """A control plane that stays away ends it with its error."""
        self.patch(commands_inside, "FOLLOW_POLL_S", 0.0)
        self.patch(commands_inside, "FOLLOW_PATIENCE_S", 0.0)
        away = {"status": 503, "message": "no node", "data": {"code": "unavailable"}}
        self.answers = [self.lines("t 1"), (503, away)]
        self.assertIn("no node", self.fails(1, "tenants", "logs", "shop", "-f"))

    def test_printable(self) -> None:
        """What a terminal obeys is shown by its number."""
        self.assertEqual(printable("a\tb é 漢\x9b\u2028\u00a0"), "a\tb é 漢\\x9b\\u2028\\xa0")


class SettingTests(InsideCase):
    def test_set_logs(self) -> None:
        """--logs alone, and with quotas; another word is refused with the allowed ones."""
        result = self.run_cli("tenants", "set", "shop", "--logs", "info")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertRegex(result.stdout, r"logs +info")
        result = self.run_cli(
            "tenants", "set", "shop", "--logs", "off", "--max-db-bytes", "5", "--json"
        )
        changed = json.loads(result.stdout)
        self.assertEqual((changed["logs"], changed["quotas"]["maxDbBytes"]), ("off", 5))
        result = self.run_cli("tenants", "set", "shop", "--logs", "all")
        self.assertIn("'off', 'errors', 'info'", result.stderr)
        self.assertIn("--logs", self.fails(2, "tenants", "set", "shop"))
