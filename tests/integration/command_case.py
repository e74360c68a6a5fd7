"""What the tests of the commands over real clusters share."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli.http import ask

WITHIN_S = 120
PASSWORD = "long enough 1"


class CommandCase(SynchronousTestCase):
    """A directory, and the command line in processes of its own."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir(parents=True)

    def cli(
        self, directory: str, *arguments: str, given: str = "", fails: bool = False
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pbcluster.cli.main", *arguments),
                *("--dir", str(self.root / directory)),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
            input=given,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        self.assertEqual(done.returncode != 0, fails, done.stdout + done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        return done

    def json(self, directory: str, *arguments: str, given: str = "") -> Any:
        return json.loads(self.cli(directory, *arguments, "--json", given=given).stdout)

    def up(self, directory: str, *arguments: str) -> dict[str, Any]:
        self.addCleanup(self.cli, directory, "down")
        found: dict[str, Any] = self.json(directory, "up", "--detach", *arguments)
        self.assertEqual({row["state"] for row in found["processes"]}, {"serving"})
        return found

    def create(self, directory: str, name: str) -> None:
        given = ("--superuser", "me@example.com", "--password-stdin")
        self.json(directory, "tenants", "create", name, *given, given=PASSWORD)

    def sign_in(self, gateway: str, name: str) -> int:
        path = "/api/collections/_superusers/auth-with-password"
        body = json.dumps({"identity": "me@example.com", "password": PASSWORD}).encode()
        headers = {"Host": f"{name}.localhost", "Content-Type": "application/json"}
        return ask("POST", gateway + path, headers=headers, body=body, timeout_s=60).status
