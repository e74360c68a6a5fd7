"""The tables of statuses: what the registry does stands there, and nothing else is done."""

from pathlib import Path

import msgspec
from twisted.trial.unittest import SynchronousTestCase

import pbcluster
from pbcluster.controlplane import commands as c
from pbcluster.controlplane import transitions
from pbcluster.records import NodeStatus, TenantStatus
from tests.controlplane.test_registry import AT, T1, Log, code

PAGE = Path(pbcluster.__file__).parent.parent / "docs" / "state-machines" / "registry.rst"


class Tables(SynchronousTestCase):
    def test_the_page_is_made_from_the_tables(self) -> None:
        """``python -m pbcluster.controlplane.transitions > docs/state-machines/registry.rst``."""
        self.assertEqual(PAGE.read_text(encoding="utf-8"), transitions.page())

    def test_every_status_and_command_exists(self) -> None:
        """And every status can be reached."""
        for kind, ways in ((TenantStatus, transitions.TENANT), (NodeStatus, transitions.NODE)):
            known = {status.value for status in kind}
            for way in ways:
                self.assertIn(way.before, known | {None})
                self.assertIn(way.after, known)
                self.assertTrue(issubclass(getattr(c, way.command), c.Command))
            reached = {way.after for way in ways}
            self.assertLessEqual(known - reached, {"archived"})
            self.assertEqual(len(set(ways)), len(ways))

    def registry_with(self, status: TenantStatus, *, node: bool) -> Log:
        """A tenant of that status, put there."""
        log = Log()
        log.node()
        log.tenant()
        if node:
            log.assign()
        record = log.registry.tenant(T1)
        old = log.registry._tenants[T1]
        log.registry._forget_indexes(old)
        log.registry._store(msgspec.structs.replace(record, status=status))
        return log

    def test_a_way_that_is_not_there_is_refused(self) -> None:
        """Each status with each command that sets one: either the table has it, or it changes
        nothing."""
        for status in TenantStatus:
            for node in (False, True):
                for command in (
                    c.MarkReady(AT, T1, "node_a", 1),
                    c.SetTenantStatus(AT, T1, 1 if node else 0, TenantStatus.IDLE),
                    c.SetTenantStatus(AT, T1, 1 if node else 0, TenantStatus.ARCHIVED),
                    c.SetTenantStatus(AT, T1, 1 if node else 0, TenantStatus.DELETED),
                    c.DeleteTenant(AT, T1),
                    c.TenantReleased(AT, T1, "node_a", 1),
                    c.RegisterNode(AT, "node_a", "s2", "http://node_a:1", 2),
                ):
                    log = self.registry_with(status, node=node)
                    index = len(log.entries) + 1
                    log.registry.apply(index, c.Keyed("", command))
                    now = log.registry.tenant(T1).status
                    way = (status.value, type(command).__name__, now.value)
                    known = {(w.before, w.command, w.after) for w in transitions.TENANT}
                    self.assertTrue(now is status or way in known, way)

    def test_nodes(self) -> None:
        """From any status to any other, as the table says."""
        for before in NodeStatus:
            for after in NodeStatus:
                log = Log()
                log.node()
                log(c.SetNodeStatus(AT, "node_a", 1, before))
                self.assertEqual(code(log(c.SetNodeStatus(AT, "node_a", 1, after))), "")
                log.node(start="s2")
                self.assertIs(log.registry.node("node_a").status, NodeStatus.HEALTHY)
