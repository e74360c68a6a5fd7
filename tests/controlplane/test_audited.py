"""Every change has an entry in the audit trail: an operator's, and the control plane's own."""

from __future__ import annotations

import inspect
import re
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.admin_api import AdminAPI
from pbcluster.controlplane.admin_guard import OPERATIONS
from tests.controlplane.test_admin_migrations import MigrationCase

#: What makes a note: a command that carries one, or a note alone.
NOTES = ("self.propose(", "self.noted(", "self.note_of(", "audit.note(")


class EveryOperation(SynchronousTestCase):
    def reaches_a_note(self, name: str, seen: set[str]) -> bool:
        """Whether a method of the API, or one that it calls, makes a note."""
        method = getattr(AdminAPI, name, None)
        if name in seen or not inspect.isfunction(method):
            return False
        seen.add(name)
        source = inspect.getsource(method)
        if any(note in source for note in NOTES):
            return True
        called = re.findall(r"self\.(_?\w+)\(", source)
        return any(self.reaches_a_note(each, seen) for each in called)

    def test_whatever_changes_something_is_noted(self) -> None:
        """A new operation that is no look must make a note, or it is named here."""
        changes = [name for name, each in OPERATIONS.items() if each.method != "GET"]
        self.assertGreater(len(changes), 25)
        self.assertEqual([n for n in changes if not self.reaches_a_note(n, set())], [])


class OfItsOwnAccord(MigrationCase):
    async def entry(self, action: str) -> dict[str, Any]:
        """The newest entry of the control plane's own with this action, once there is one."""
        while True:
            _, listed = await self.ask("GET", "/audit")
            for each in listed["items"]:
                if (each["actor"], each["action"]) == ("control-plane", action):
                    found: dict[str, Any] = each
                    return found
            await deferLater(reactor, 0.01)

    async def test_a_rescue(self) -> None:
        """A tenant whose node died: where it went, and why."""
        tenant = await self.create("shop")
        self.world.kill(self.process(tenant["nodeID"]))
        entry = await self.entry("tenant.assign")
        self.assertEqual((entry["target"], entry["outcome"]), (tenant["id"], "done"))
        told = f"to {self.other(tenant)}: node {tenant['nodeID']} does not answer"
        self.assertEqual(entry["detail"], told)

    async def test_moves_of_a_drain(self) -> None:
        """Who asked for the drain is one entry, each move another one."""
        tenant = await self.create("shop")
        await self.ask("POST", f"/nodes/{tenant['nodeID']}/drain")
        entry = await self.entry("tenant.migrate")
        self.assertEqual(entry["target"], tenant["id"])
        told = f"to {self.other(tenant)}: node {tenant['nodeID']} is drained"
        self.assertEqual(entry["detail"], told)

    async def test_an_abort(self) -> None:
        """A migration whose target dies: why it ended."""
        tenant = await self.create("shop")
        target = self.other(tenant)
        self.process(target).lazy = {"warmed"}
        await self.ask("POST", "/tenants/shop/migrate", {"targetNode": target})
        self.process(target).frozen = True
        entry = await self.entry("tenant.abort-migration")
        self.assertEqual(entry["target"], tenant["id"])
        self.assertEqual(entry["detail"], f"the target {target} does not answer")
