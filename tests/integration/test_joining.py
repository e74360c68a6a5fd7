"""Processes of other machines join, serve and are removed, by the commands that users type.

Each machine is a loopback address of its own here: nothing of a process listens anywhere else. The
cluster has TLS between gateways and nodes, so that those who join need certificates too.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pbcluster
from pbcluster.cli import procfs
from pbcluster.cli.http import Answer, Unreachable, ask
from pbcluster.cli.layout import ClusterDir
from tests.integration.command_case import PASSWORD, CommandCase

FIRST, SECOND, THIRD, FOURTH = (f"127.0.0.{number}" for number in range(2, 6))
#: Far beyond what each step takes.
WITHIN_S = 60.0


class JoiningTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        #: The words of each command that was typed.
        self.typed: list[tuple[str, ...]] = []

    def wait(self, what: str, true: Callable[[], Any]) -> Any:
        until = time.monotonic() + WITHIN_S
        while not (found := true()):
            self.assertLess(time.monotonic(), until, what)
            time.sleep(0.05)
        return found

    def cli(self, directory: str, *arguments: str, **more: Any) -> Any:
        self.typed.append(("pbcluster", *arguments, "--dir"))
        return super().cli(directory, *arguments, **more)

    def token(self, role: str, *more: str) -> Path:
        file = self.root / f"{role}.token"
        made = self.json("a", "join-tokens", "create", "--role", role, "--out", str(file), *more)
        self.assertEqual(made["status"], "open")
        return file

    def join(self, directory: str, token: Path, address: str) -> str:
        at = ("--token-file", str(token), "--address", address, "--port", "0")
        return str(self.json(directory, "join", *at)["id"])

    def twistd(self, directory: str, name: str) -> subprocess.Popen[str]:
        """As an operator's own service manager starts it."""
        config = ClusterDir.at(self.root / directory).config(name)
        self.typed.append(("twistd", "--nodaemon", "--pidfile", "--reactor", "pbnode", "--config"))
        argv = [str(Path(sys.executable).parent / "twistd"), "--nodaemon", "--pidfile="]
        argv += ["--reactor=pbuvloop", "pbnode", f"--config={config}"]
        process = subprocess.Popen(
            argv,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
            cwd=self.root / directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        who = procfs.identify(process.pid)
        assert who is not None
        self.addCleanup(process.communicate)
        self.addCleanup(procfs.end_all, [who], 10.0)
        return process

    def ask(
        self, gateway: str, path: str, body: Any = None, token: str = "", timeout_s: float = 30.0
    ) -> Answer:
        headers = {"Host": "shop.localhost", "Content-Type": "application/json"}
        headers |= {"Authorization": token} if token else {}
        data = None if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        return ask(method, gateway + path, headers=headers, body=data, timeout_s=timeout_s)

    def test_a_cluster_of_four_machines(self) -> None:
        """A member, a node and a gateway join from machines of their own. The tenant that moves to
        the node is written and read through the gateway; the member leads, and lets the gateway in.
        A token lets nobody in twice. The removed node ends and is refused at its return, the
        removed gateway is refused by nodes. No log has a token or a secret in it."""
        ports = ("--gateway-port", "0", "--admin-port", "0", "--members", "1", "--nodes", "1")
        names = ("--base-domain", "localhost", "--node-tls")
        self.json("a", "init", "--address", FIRST, *names, *ports)
        self.up("a")
        self.create("a", "shop")
        tokens = [self.token("member"), self.token("node", "--id", "node_london")]
        member = self.join("m", tokens[0], SECOND)
        node = self.join("n", tokens[1], THIRD)
        self.assertEqual(node, "node_london")
        refused = self.cli("x", "join", "--token-file", str(tokens[1]), "--port", "0", fails=True)
        self.assertIn(f"{node} joined by this token already", refused.stderr)
        self.cli("x", "up", fails=True)  # no cluster of its own in the place of what was to join
        self.up("m")
        service = self.twistd("n", node)
        self.wait("the member votes", lambda: self.members()[member]["voter"])
        self.cli("a", "members", "transfer", member)
        self.wait("the member leads", lambda: self.members()[member]["role"] == "leader")
        tokens.append(self.token("gateway", "--ttl", "30m"))
        gateway = self.join("g", tokens[2], FOURTH)
        url = self.up("g")["processes"][0]["address"]
        self.wait("the node is up", lambda: node in self.alive())
        self.moved_written_and_read(node, url)
        self.removed(node, service)
        self.assertEqual(self.ask(url, "/api/health").status, 200)
        self.json("a", "gateways", "remove", gateway, "--yes")
        self.wait("nodes refuse it", lambda: not self.answers(url))
        own = ClusterDir.at(self.root / "a").load_plan().gateway_url
        self.assertEqual(self.ask(own, "/api/health").status, 200)
        self.assertEqual([row["id"] for row in self.json("a", "gateways", "list")], ["gateway_1"])
        self.nothing_given_away([file.read_text().strip() for file in tokens])
        self.members_leave(member)
        self.all_commands_of_the_page_were_typed()

    def members_leave(self, member: str) -> None:
        """The member is removed and its process ends; a token that nobody used is revoked."""
        self.cli("a", "members", "remove", member, "--yes")
        self.assertEqual(list(self.members()), ["member_1"])
        made = self.json("a", "join-tokens", "create", "--role", "node")
        self.cli("a", "join-tokens", "revoke", made["id"])
        left = {row["id"]: row["status"] for row in self.json("a", "join-tokens", "list")}
        self.assertNotIn(made["id"], left)

    def all_commands_of_the_page_were_typed(self) -> None:
        """docs/several-machines.rst shows no command, and none of its options, but those."""
        page = Path(pbcluster.__file__).parent.parent / "docs" / "several-machines.rst"
        shown = [
            shlex.split(line)
            for line in page.read_text(encoding="utf-8").splitlines()
            if line.startswith(("    pbcluster ", "    twistd "))
        ]
        self.assertGreater(len(shown), 15)
        for words in shown:
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            first = next(n for n, word in enumerate(words) if word.startswith("--"))
            # Of the words before the options the last may be an id.
            commands = (tuple(words[:first]), tuple(words[: first - 1]))
            self.assertTrue(
                any(
                    typed[: len(command)] == command and options <= set(typed)
                    for typed in self.typed
                    for command in commands
                    if len(command) > 1 or command == ("twistd",)
                ),
                " ".join(words),
            )

    def answers(self, gateway: str) -> bool:
        """A gateway that is refused tries again for as long as a request may take."""
        try:
            return self.ask(gateway, "/api/health", timeout_s=2.0).status == 200
        except Unreachable:
            return False

    def members(self) -> dict[str, dict[str, Any]]:
        return {row["id"]: row for row in self.json("a", "members", "list")}

    def alive(self) -> list[str]:
        return [row["id"] for row in self.json("a", "nodes", "list") if row["alive"]]

    def moved_written_and_read(self, node: str, url: str) -> None:
        """The tenant moves to the node; what is written there through the joined gateway is read
        there, and its files are on that machine alone."""
        moved = self.json("a", "tenants", "migrate", "shop", "--to", node)
        self.assertEqual(moved["phase"], "done")
        login = {"identity": "me@example.com", "password": PASSWORD}
        signed = self.ask(url, "/api/collections/_superusers/auth-with-password", login)
        self.assertEqual(signed.status, 200, signed.body)
        token = json.loads(signed.body)["token"]
        fields = [{"name": "word", "type": "text"}]
        made = self.ask(
            url, "/api/collections", {"name": "t", "type": "base", "fields": fields}, token
        )
        self.assertEqual(made.status, 200, made.body)
        written = self.ask(url, "/api/collections/t/records", {"word": "there"}, token)
        self.assertEqual(written.status, 200, written.body)
        self.assertEqual(written.headers["x-pbcluster-durability"], "s3")
        row = json.loads(written.body)["id"]
        read = self.ask(url, f"/api/collections/t/records/{row}", None, token)
        self.assertEqual(json.loads(read.body)["word"], "there")
        self.assertEqual(self.json("a", "tenants", "show", "shop")["nodeID"], node)

    def removed(self, node: str, service: subprocess.Popen[str]) -> None:
        """Its tenant is moved off it, its process ends, and another start of it too."""
        told = self.json("a", "nodes", "remove", node, "--yes")
        self.assertEqual(told, {"id": node, "removed": True, "left": 0})
        said, _ = service.communicate(timeout=WITHIN_S)
        self.assertIn(f"{node} was removed", said)
        again = self.twistd("n", node)
        said, _ = again.communicate(timeout=WITHIN_S)
        self.assertIn(f"{node} was removed", said)
        self.assertEqual(self.alive(), ["node_1"])
        refused = self.cli("a", "join-tokens", "create", "--role", "node", "--id", node, fails=True)
        self.assertIn("an id never comes back", refused.stderr)

    def nothing_given_away(self, tokens: list[str]) -> None:
        """Logs and configuration have no token, no key of S3 and none of a gateway."""
        secrets = [*tokens]
        for file in self.root.glob("*/secrets/*.toml"):
            for line in file.read_text().splitlines():
                name, _, value = line.partition(" = ")
                if value and "hash" not in name and name != "s3_access_key":
                    secrets.append(value.strip('"'))
        self.assertGreater(len(secrets), 10)
        files = [*self.root.glob("*/log/*"), *self.root.glob("*/config/*")]
        for file in [*files, *self.root.glob("*/run/*")]:
            text = file.read_text(errors="replace") if file.is_file() else ""
            self.assertEqual([each for each in secrets if each in text], [], file)
