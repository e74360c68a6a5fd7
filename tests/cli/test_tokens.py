"""``tokens`` and ``tenants domains`` as a user types them, against a fake admin API."""

import json

from pbcluster.cli.commands_tokens import seconds_of
from pbcluster.errors import InvalidInput
from tests.cli.test_commands import CommandTestCase


class TokenCommandTests(CommandTestCase):
    def test_issue(self) -> None:
        """The token alone is on stdout, in one line however long it is; the rest on stderr."""
        result = self.run_cli("tokens", "issue", "shop", "--expires", "30m")
        self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(result.stdout, "a.b.c" * 50 + "\n")
        self.assertIn("until soon", result.stderr)
        self.assertEqual(self.fake.token_bodies, [{"tenant": "shop", "expiresIn": 1800}])
        result = self.run_cli("tokens", "issue", "shop", "--json")
        self.assertEqual(json.loads(result.stdout)["kid"], "pb1")
        self.assertEqual(self.fake.token_bodies[-1]["expiresIn"], 3600)

    def test_lifetimes(self) -> None:
        """Units, and a sentence for what has none."""
        for text, seconds in (("90s", 90), ("30m", 1800), ("2h", 7200), ("90d", 7776000), ("5", 5)):
            self.assertEqual(seconds_of(text), seconds)
        for text in ("", "h", "1w", "-1h", "1.5h", "1h30m", "99999999999s"):
            self.assertRaises(InvalidInput, seconds_of, text)
        self.assertIn("like 90s", self.fails(2, "tokens", "issue", "shop", "--expires", "1w"))

    def test_keys_and_rotation(self) -> None:
        """keys lists them; rotate says whether former tokens stay."""
        self.assertIn("pb1", self.run_cli("tokens", "keys").stdout)
        self.assertEqual(
            json.loads(self.run_cli("tokens", "keys", "--json").stdout)[0]["kid"], "pb1"
        )
        self.assertIn("stay", self.run_cli("tokens", "rotate").stdout)
        self.assertIn("no token issued before", self.run_cli("tokens", "rotate", "--now").stdout)
        self.assertEqual(
            json.loads(self.run_cli("tokens", "rotate", "--json").stdout)["kid"], "pb1"
        )
        self.assertEqual(
            [body["now"] for body in self.fake.token_bodies if body], [False, True, False]
        )


class DomainCommandTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.run_cli("tenants", "create", "shop", "--superuser", "me@example.com")

    def listed(self) -> list[str]:
        found = json.loads(self.run_cli("tenants", "domains", "list", "shop", "--json").stdout)
        domains: list[str] = found["customDomains"]
        return domains

    def test_add_and_remove(self) -> None:
        """Each is done once, whatever the case of the letters; others stay."""
        for domain in ("a.example.com", "B.example.com", "a.EXAMPLE.com"):
            result = self.run_cli("tenants", "domains", "add", "shop", domain)
            self.assertEqual(result.exit_code, 0, result.output)
        self.assertEqual(self.listed(), ["a.example.com", "b.example.com"])
        result = self.run_cli("tenants", "domains", "remove", "shop", "A.example.com")
        self.assertEqual(result.stdout, "b.example.com\n")
        text = self.fails(2, "tenants", "domains", "remove", "shop", "a.example.com")
        self.assertIn("it has: b.example.com", text)

    def test_changed_meanwhile(self) -> None:
        """A tenant that changes between look and change is looked at again, not for ever; a domain
        that is taken is told at once."""
        self.fake.changing = 2
        self.run_cli("tenants", "domains", "add", "shop", "a.example.com")
        self.assertEqual(self.listed(), ["a.example.com"])
        self.assertIn(
            "taken", self.fails(1, "tenants", "domains", "add", "shop", "taken.example.com")
        )
        self.fake.changing = 100
        self.assertIn(
            "changed meanwhile", self.fails(1, "tenants", "domains", "add", "shop", "b.example.com")
        )
        self.assertEqual(self.fake.changing, 95)
