"""``api-tokens``, ``audit`` and ``tenants rename`` as a user types them, against a fake API."""

import json
import os
from unittest import mock

from tests.cli.test_commands import CommandTestCase


class AccessTests(CommandTestCase):
    def test_tokens(self) -> None:
        """A new one is alone on stdout; a list shows none; one that is not there is an error."""
        result = self.run_cli("api-tokens", "create", "ci", "--role", "viewer", "--expires", "2h")
        self.assertEqual(result.stdout, "apitoken_1.secret\n")
        self.assertIn("until soon", result.stderr)
        body = {"name": "ci", "role": "viewer", "expiresIn": 7200}
        self.assertEqual(self.fake.token_bodies, [body])
        listed = self.run_cli("api-tokens", "list").stdout
        self.assertIn("apitoken_1", listed)
        self.assertNotIn("secret", listed)
        self.assertIn("no more", self.run_cli("api-tokens", "revoke", "apitoken_1").stdout)
        self.assertIn("no such token", self.fails(1, "api-tokens", "revoke", "x"))
        self.assertEqual(self.run_cli("api-tokens", "create", "ci", "--role", "root").exit_code, 2)

    def test_another_token(self) -> None:
        """The environment's goes before the cluster's own."""
        with mock.patch.dict(os.environ, PBCLUSTER_API_TOKEN="apitoken_9.wrong"):
            self.assertIn("token", self.fails(1, "tenants", "list"))

    def test_the_trail(self) -> None:
        """The newest entries, oldest of them first, over as many pages as it takes."""
        found = json.loads(self.run_cli("audit", "--json").stdout)
        self.assertEqual([entry["id"] for entry in found], list(range(671, 701)))
        found = json.loads(self.run_cli("audit", "-n", "600", "--json").stdout)
        self.assertEqual([entry["id"] for entry in found], list(range(101, 701)))
        self.run_cli("audit", "--filter", "action ~ 'x'")
        self.assertEqual(self.fake.filters[-1], "action ~ 'x'")

    def test_rename(self) -> None:
        """Tells where the tenant answers now; a name that cannot be is refused here."""
        self.run_cli("tenants", "create", "shop", "--superuser", "me@example.com")
        self.assertIn("store.", self.run_cli("tenants", "rename", "shop", "store").stdout)
        self.assertIn("not allowed", self.fails(2, "tenants", "rename", "store", "a_b"))
