"""The control plane's leader is killed in each phase of every operation, with real parts."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.testing.soak_phases import OPERATIONS, Phases


class PhaseTests(SynchronousTestCase):
    timeout = 240

    def test_every_phase_of_every_operation(self) -> None:
        """Whoever creates, migrates, drains, archives or deletes: the operation ends as it was
        meant, the tenant has one owner, and the clients of a tenant that moves meanwhile notice
        nothing."""
        with Phases(lambda line: None) as phases:
            phases.run()
            self.assertEqual(phases.faults(), [], phases.cluster.logs())
            done = {(each.operation, each.phase) for each in phases.kills}
            self.assertEqual(done, {(o, phase) for o, all_ in OPERATIONS.items() for phase in all_})
            for each in phases.kills:
                if each.phase != "switching":
                    self.assertEqual(each.seen, each.phase)
