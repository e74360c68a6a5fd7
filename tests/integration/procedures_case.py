"""What the tests of the procedures share: they run the blocks of the pages in docs/operations as
they stand there, by a shell, in a directory whose ``cluster`` is a real one.

A test names its blocks in ``blocks``; :meth:`ProcedureCase.run_block` refuses others, and each that
is named must have run when the test ends. ``test_procedures`` holds that no page has further ones.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.gateway.service import QUIET_S
from pbcluster.testing.workload import Client, Event, Journal, Workload, check, prepare
from tests.integration.command_case import PASSWORD, CommandCase
from tests.integration.support import tell

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = DOCS / "operations"
#: The slowest block moves all tenants of two nodes, or waits for the nodes of a lost cluster.
BLOCK_WITHIN_S = 180
EMAIL = "me@example.com"


def _extension() -> ModuleType:
    file = DOCS / "_ext" / "procedures.py"
    spec = importlib.util.spec_from_file_location("procedures", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def all_blocks() -> dict[str, str]:
    """Name → commands, of every page. :raises ValueError: two blocks have one name."""
    found: dict[str, str] = {}
    for page in sorted(PAGES.glob("*.rst")):
        for name, text in _extension().blocks(page).items():
            if name in found:
                raise ValueError(f"two blocks are called {name!r}")
            found[name] = text
    return found


def _was_late(journal: Journal, failed: Event) -> bool:
    """Whether a client on a busy machine let its connection rest for a second, just when the
    gateway drained: it may be closed as the client sends (decision 0031). Ours rest for 20 ms.
    """
    client = (failed.kind, failed.record[:4] if failed.kind == "write" else "")
    ends = [
        each.ended
        for each in journal.events
        if (each.kind, each.record[:4] if each.kind == "write" else "") == client
        and each.ended <= failed.begun
    ]
    return failed.status == 0 and bool(ends) and failed.begun - max(ends) >= QUIET_S


class ProcedureCase(CommandCase):
    """One cluster, ``cluster`` in a directory of its own; a subclass names its ``blocks``."""

    timeout = 300
    blocks: tuple[str, ...] = ()
    #: Further arguments of ``init``.
    options: tuple[str, ...] = ()

    def setUp(self) -> None:
        super().setUp()
        self.known = all_blocks()
        self.done: list[str] = []
        self.journals: list[Journal] = []
        self.bin = self.root / "bin"
        self.bin.mkdir()
        command = self.bin / "pbcluster"
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        command.write_text(
            f"#!/bin/sh\nPYTHONPATH={shlex.quote(paths)} "
            f'exec {shlex.quote(sys.executable)} -P -m pbcluster.cli.main "$@"\n'
        )
        command.chmod(0o755)
        self.addCleanup(self.sh, "! test -d cluster || pbcluster down")
        self.sh(
            f"pbcluster init --gateway-port 0 --admin-port 0 {shlex.join(self.options)}"
            " && pbcluster up --detach"
        )

    def tearDown(self) -> None:
        self.assertEqual(tuple(self.done), self.blocks, "the blocks that were to run, in order")

    # -- commands ---------------------------------------------------------------------------------

    def sh(self, text: str, *, fails: bool = False) -> str:
        """Run commands by a shell that stops at the first that fails. :returns: what was told."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.root,
            env=os.environ | {"PATH": f"{self.bin}{os.pathsep}{os.environ.get('PATH', '')}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BLOCK_WITHIN_S,
            check=False,
        )
        told = f"{text}\n{done.stdout}{done.stderr}"
        self.assertEqual(done.returncode != 0, fails, told)
        self.assertNotIn("Traceback", told)
        return done.stdout + done.stderr

    def run_block(self, name: str) -> str:
        """Run a block of a page exactly as it stands there."""
        self.assertIn(name, self.blocks)
        self.done.append(name)
        return self.sh(self.known[name])

    def timed(self, name: str) -> str:
        """As :meth:`run_block`; how long it took is told."""
        began = time.monotonic()
        told = self.run_block(name)
        tell(name, time.monotonic() - began)
        return told

    # -- the cluster ------------------------------------------------------------------------------

    @property
    def where(self) -> ClusterDir:
        """The cluster's directory."""
        return ClusterDir.at(self.root / "cluster")

    @property
    def plan(self) -> Plan:
        """Its plan as it is now."""
        return self.where.load_plan()

    def pids(self, directory: str = "cluster") -> dict[str, int]:
        """Process id of everything that serves."""
        rows = self.json(directory, "status")["processes"]
        return {row["id"]: row["pid"] for row in rows if row["state"] == "serving"}

    def tenant(self, name: str, *more: str) -> Client:
        """A new tenant with the workload's collection, and its signed-in superuser."""
        given = ("--superuser", EMAIL, "--password-stdin", *more)
        self.json("cluster", "tenants", "create", name, *given, given=PASSWORD)
        client = self.client(name)
        prepare(client)
        return client

    def client(self, name: str, plan: Plan | None = None) -> Client:
        """Its signed-in superuser."""
        plan = plan or self.plan
        client = Client(plan.gateway_url, f"{name}.{plan.base_domain}")
        self.addCleanup(client.close)
        client.sign_in(EMAIL, PASSWORD)
        return client

    @contextmanager
    def served(
        self, client: Client, name: str = "w", *, refusable: bool = False
    ) -> Iterator[Journal]:
        """Writers and readers at work meanwhile; afterwards no request of theirs failed, nothing
        was stale, and each row that was acknowledged then or before is there. Of one tenant only.

        :param name: other than before. :param refusable: writes may be answered 503.
        """
        load = Workload(client.gateway, client.host, name, writers=2, readers=1, pause_s=0.02)
        with load.running() as journal:
            load.wait_for_acks(5)
            yield journal
            load.wait_for_acks(5)
        refused = ("write", 503) if refusable else ()
        failures = [
            (each.kind, each.status, each.detail)
            for each in journal.failures()
            if (each.kind, each.status) != refused and not _was_late(journal, each)
        ]
        self.assertEqual((failures, journal.stale), ([], []))
        client.close()  # a gateway that drained closed it
        self.journals.append(journal)
        verdict = check(client, *self.journals)
        self.assertEqual((verdict.lost, verdict.changed, verdict.invented), ([], [], []))
