"""The lease rules on the real member, under seeded weather; see ``lease_world``."""

from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane.liveness import Liveness
from pbcluster.controlplane.registry import Registry
from tests.controlplane.lease_world import World

#: Each takes about 0.12 s. More by hand: raise it; 700 passed when this was written.
SEEDS = 30
EVENTS = 25


def play(seed: int) -> str:
    """One life of a cluster. :returns: what was wrong, empty: nothing."""
    world = World(seed, hasty=seed % 2 == 1)
    try:
        for _ in range(EVENTS):
            world.weather()
            world.run_for(world.random.random() * 2)
        world.calm()
        for _ in range(10):
            for tenant_id in world.tenants:
                world.ask_for(tenant_id)
            world.run_for(1.0)
        for tenant_id in world.tenants:
            answering = [p.node_id for p in world.processes if p.answers(tenant_id)]
            owner = world.registry.tenant(tenant_id).node_id
            if answering != [owner]:
                return f"seed {seed}: {tenant_id} of {owner} is answered by {answering} at the end"
    except AssertionError as error:
        return f"seed {seed}: {error}"
    finally:
        world.close()
    return ""


class TestLeaseRules(SynchronousTestCase):
    def test_one_answers(self) -> None:
        """Whatever happens, one process at most answers for a tenant, and one does after it."""
        for seed in range(SEEDS):
            self.assertEqual(play(seed), "")

    def caught(self) -> bool:
        return any("is answered by [(" in play(seed) for seed in range(60))

    def test_without_the_margin_two_answer(self) -> None:
        """The world notices when tenants are given away at once."""

        def at_once(self: Liveness, node_id: str, now: float) -> bool:
            return not self.alive(node_id)

        with mock.patch.object(Liveness, "may_give_away", at_once):
            self.assertTrue(self.caught())

    def test_without_the_wait_for_an_older_start_two_answer(self) -> None:
        """The world notices when a new start gets a new epoch beside its living predecessor."""
        with mock.patch.object(Liveness, "may_renew", return_value=True):
            self.assertTrue(self.caught())

    def test_without_the_index_of_the_list_two_answer_or_nobody(self) -> None:
        """The world notices when a changed list keeps its index."""
        with mock.patch.object(Registry, "_touch_node", return_value=None):
            self.assertTrue(any(play(seed) for seed in range(20)))
