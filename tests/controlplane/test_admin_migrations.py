"""Migrations, drains, placement and the survey through the admin API, in a world of model nodes."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from pbcluster import wire
from pbcluster.errors import PBClusterError
from tests.controlplane.test_admin_api import AdminCase

ENDS = ("done", "aborted")


class MigrationCase(AdminCase):
    async def until(self, path: str, field: str, *values: Any) -> Any:
        """Ask again until a field has one of these values."""
        while True:
            status, shown = await self.ask("GET", path)
            if status == 200 and shown[field] in values:
                return shown
            await deferLater(reactor, 0.01)

    def other(self, tenant: Any) -> str:
        return "node_1" if tenant["nodeID"] == "node_0" else "node_0"

    def process(self, node_id: str) -> Any:
        return next(each for each in self.world.processes if each.node_id == node_id)


class TestMigrate(MigrationCase):
    async def test_a_tenant_moves(self) -> None:
        """202 with the record, then its progress until it is done; the routes tell old and new."""
        tenant = await self.create("shop")
        target = self.other(tenant)
        status, record = await self.ask("POST", "/tenants/shop/migrate", {"targetNode": target})
        self.assertEqual(status, 202)
        self.assertEqual((record["phase"], record["targetNode"]), ("preparing", target))
        done = await self.until("/tenants/shop/migration", "phase", *ENDS)
        self.assertEqual((done["phase"], done["reason"]), ("done", ""))
        self.assertEqual(done["targetEpoch"], done["sourceEpoch"] + 1)
        self.assertEqual(set(done["durations"]), {"preparing", "draining", "switching", "total"})
        self.assertEqual([each["priority"] for each in done["routes"]], [1, 0])
        _, tenant = await self.ask("GET", "/tenants/shop")
        self.assertEqual(tenant["nodeID"], target)

    async def test_bad_wishes_are_refused_with_the_reason(self) -> None:
        """Unknown and missing fields 400, unknown node 422, everything else that is in the way
        409; none of it begins anything."""
        tenant = await self.create("shop")
        here, target = tenant["nodeID"], self.other(tenant)
        for body, status, told in (
            ({}, 400, "targetNode"),
            ({"targetNode": 7}, 400, "targetNode"),
            ({"targetNode": target, "force": True}, 400, "force"),
            ({"targetNode": "node_9"}, 422, "no node 'node_9'"),
            ({"targetNode": here}, 409, "already"),
        ):
            code, answer = await self.ask("POST", "/tenants/shop/migrate", body)
            self.assertEqual(code, status, (body, answer))
            self.assertIn(told, str(answer))
        self.assertEqual((await self.ask("GET", "/tenants/shop/migration"))[0], 404)
        self.assertEqual((await self.ask("DELETE", "/tenants/shop/migration"))[0], 404)
        body = {"targetNode": target}
        self.assertEqual((await self.ask("POST", "/tenants/nix/migrate", body))[0], 404)
        await self.ask("POST", f"/nodes/{target}/drain")
        code, answer = await self.ask("POST", "/tenants/shop/migrate", body)
        self.assertEqual((code, "is draining" in answer["message"]), (409, True))

    async def test_one_at_a_time_and_it_can_be_aborted(self) -> None:
        """A second wish is 409 while the first is under way; an abort gives the tenant back, and
        is itself 409 once nothing is under way."""
        tenant = await self.create("shop")
        target = self.other(tenant)
        self.process(target).lazy = {"warmed"}
        body = {"targetNode": target}
        self.assertEqual((await self.ask("POST", "/tenants/shop/migrate", body))[0], 202)
        code, answer = await self.ask("POST", "/tenants/shop/migrate", body)
        self.assertEqual((code, "preparing" in answer["message"]), (409, True))
        code, record = await self.ask("DELETE", "/tenants/shop/migration")
        self.assertEqual((code, record["phase"]), (200, "aborted"))
        self.assertEqual((await self.ask("DELETE", "/tenants/shop/migration"))[0], 409)
        _, tenant_now = await self.ask("GET", "/tenants/shop")
        self.assertEqual(tenant_now["nodeID"], tenant["nodeID"])

    async def test_a_repeated_wish_is_one(self) -> None:
        """The same Idempotency-Key begins one migration."""
        tenant = await self.create("shop")
        body = {"targetNode": self.other(tenant)}
        answers = [
            await self.ask("POST", "/tenants/shop/migrate", body, Idempotency_Key="k1")
            for _ in range(2)
        ]
        self.assertEqual(answers[0][0], 202)
        self.assertIn(answers[1][0], (202, 409))
        if answers[1][0] == 202:
            self.assertEqual(answers[0][1]["id"], answers[1][1]["id"])

    async def test_the_next_leader_finishes_it(self) -> None:
        """The member dies while the source drains; started again from its log, it goes on with
        the same migration and ends it."""
        tenant = await self.create("shop")
        source, target = tenant["nodeID"], self.other(tenant)
        self.process(source).lazy = {"drained"}
        await self.ask("POST", "/tenants/shop/migrate", {"targetNode": target})
        before = await self.until("/tenants/shop/migration", "phase", "draining")
        world = self.world
        world.crash_member()
        # What it reports finds nobody at first.
        self.process(source).lazy = set()
        self.process(source).follow_orders(world.registry.assignments(source))
        world.start_member()
        for _ in range(2000):
            await deferLater(reactor, 0.005)
            try:
                record = world.registry.migration(tenant["id"])
            except PBClusterError:
                continue
            if record.phase.value in ENDS:
                break
        self.assertEqual((record.id, record.phase.value), (before["id"], "done"))
        self.assertEqual(world.registry.tenant(tenant["id"]).node_id, target)


class TestNodes(MigrationCase):
    async def test_a_drain_empties_a_node(self) -> None:
        """Its tenants go elsewhere and it gets no new one until it is undrained."""
        tenants = [await self.create(f"t{number}") for number in range(4)]
        source = tenants[0]["nodeID"]
        target = self.other(tenants[0])
        status, shown = await self.ask("POST", f"/nodes/{source}/drain")
        self.assertEqual((status, shown["drainWanted"], shown["status"]), (202, True, "draining"))
        shown = await self.until(f"/nodes/{source}/drain", "left", 0)
        self.assertEqual(shown["aborted"], {})
        for tenant in tenants:
            _, now = await self.ask("GET", f"/tenants/{tenant['name']}")
            self.assertEqual(now["nodeID"], target)
        new = await self.create("new")
        self.assertEqual(new["nodeID"], target)
        status, shown = await self.ask("POST", f"/nodes/{source}/undrain")
        self.assertEqual((status, shown["status"]), (200, "healthy"))
        self.assertEqual((await self.ask("POST", "/nodes/nix/drain"))[0], 404)
        _, plan = await self.ask("GET", "/rebalance")
        self.assertEqual(plan["totalMoves"], 2)

    async def test_the_nodes_are_evened_out(self) -> None:
        """After an undrain: all tenants on one node, then half of them; who asks again while it
        runs is told so; when it is over there is nothing to cancel, and nothing moves again."""
        self.assertEqual((await self.ask("GET", "/rebalance/status"))[0], 404)
        self.assertEqual((await self.ask("DELETE", "/rebalance"))[0], 409)
        await self.ask("POST", "/nodes/node_0/drain")
        for number in range(4):
            await self.create(f"t{number}")
        await self.ask("POST", "/nodes/node_0/undrain")
        status, shown = await self.ask("POST", "/rebalance", {"atOnce": 1})
        self.assertEqual((status, shown["state"], shown["totalMoves"]), (202, "running", 2))
        self.assertEqual((await self.ask("POST", "/rebalance"))[0], 409)
        done = await self.until("/rebalance/status", "state", "done", "ended")
        self.assertEqual((done["state"], done["left"], done["reason"]), ("done", 0, ""))
        _, nodes = await self.ask("GET", "/nodes")
        self.assertEqual({each["assignedCount"] for each in nodes["items"]}, {2}, nodes)
        self.assertEqual((await self.ask("DELETE", "/rebalance"))[0], 409)
        _, trail = await self.ask("GET", "/audit")
        told = [each["detail"] for each in trail["items"] if each["action"] == "cluster.rebalance"]
        self.assertIn("2 moves, 1 at once", told)
        status, _ = await self.ask("POST", "/rebalance")
        done = await self.until("/rebalance/status", "state", "done", "ended")
        self.assertEqual((status, done["totalMoves"], done["state"]), (202, 0, "done"))

    async def test_a_rebalancing_is_cancelled(self) -> None:
        """No more tenants begin to move; the status says why it ended."""
        await self.ask("POST", "/nodes/node_0/drain")
        for number in range(4):
            await self.create(f"t{number}")
        await self.ask("POST", "/nodes/node_0/undrain")
        await self.ask("POST", "/rebalance", {"atOnce": 1})
        status, shown = await self.ask("DELETE", "/rebalance")
        self.assertEqual((status, shown["state"], shown["left"]), (200, "ended", 0))
        self.assertEqual(shown["reason"], "an operator ended it")
        for bad in ({"atOnce": 0}, {"atOnce": "x"}, {"atOnce": 17}, {"at": 1}):
            self.assertEqual((await self.ask("POST", "/rebalance", bad))[0], 400, bad)

    async def test_wishes_for_a_place(self) -> None:
        """A tenant of a group goes where fewest of the group are; a region that no node has is
        refused before anything is made, with the reason; a changed wish is shown and explained."""
        wish = {"placement": {"spread": "shop"}}
        places = [(await self.create(f"t{n}", **wish))["nodeID"] for n in range(2)]
        self.assertEqual(set(places), {"node_0", "node_1"})
        body = {"name": "mars", "placement": {"region": "mars"}}
        status, told = await self.ask("POST", "/tenants", body)
        self.assertEqual((status, list(told["data"])), (422, ["placement"]), told)
        self.assertIn("mars", told["message"])
        self.assertEqual((await self.ask("GET", "/tenants/mars"))[0], 404)
        status, tenant = await self.ask("PUT", "/tenants/t0", {"placement": {"zone": "z1"}})
        self.assertEqual((status, tenant["placement"]), (200, {"zone": "z1"}))
        self.assertEqual(tenant["nodeID"], places[0])
        _, shown = await self.ask("GET", "/tenants/t0/placement")
        self.assertEqual((shown["constraints"], shown["next"]), ({"zone": "z1"}, ""))
        self.assertIn("z1", shown["reasons"][places[1]])
        for bad in ({"zone": 7}, {"zone": "a b"}, {"planet": "mars"}, {"zone": "z" * 65}):
            status, told = await self.ask("PUT", "/tenants/t0", {"placement": bad})
            self.assertEqual(status, 400, (bad, told))

    async def test_placement_is_explained(self) -> None:
        """Where it would go, why, and why not elsewhere."""
        tenant = await self.create("shop")
        status, shown = await self.ask("GET", "/tenants/shop/placement")
        self.assertEqual((status, shown["next"]), (200, self.other(tenant)))
        self.assertEqual(shown["reasons"][tenant["nodeID"]], "has it now")
        self.assertIn("has 0 of 5 tenants", shown["why"])
        await self.ask("POST", f"/nodes/{self.other(tenant)}/drain")
        _, shown = await self.ask("GET", "/tenants/shop/placement")
        self.assertEqual(shown["next"], "")
        self.assertEqual(shown["reasons"][self.other(tenant)], "is draining")


class TestFind(MigrationCase):
    async def test_all_is_right(self) -> None:
        """The owner says that it has it, nobody else does, nothing is corrected."""
        tenant = await self.create("shop")
        _, shown = await self.ask("GET", "/tenants/shop/find")
        self.assertEqual([each["nodeID"] for each in shown["found"]], [tenant["nodeID"]])
        self.assertEqual((shown["silent"], shown["corrected"]), ([], []))

    async def test_who_has_it_wrongly_is_told_to_release_it(self) -> None:
        """It gets its list again, and the answer says so."""
        tenant = await self.create("shop")
        wrong = self.process(self.other(tenant))
        wrong.found = {tenant["id"]: 1}
        told: list[wire.Body] = []
        self.patch(self.world.server, "tell", lambda peer, body: told.append(body) or True)
        _, shown = await self.ask("GET", "/tenants/shop/find")
        (line,) = shown["corrected"]
        self.assertIn("was told to release it", line)
        # All of it: who has what it should not have may have any list.
        lists = [each for each in told if isinstance(each, wire.NodeAssignments)]
        self.assertEqual(
            [(each.node_id, each.assignments) for each in lists], [(wrong.node_id, ())]
        )

    async def test_an_owner_beyond_the_registry_gets_a_new_epoch(self) -> None:
        """A survey makes no owner: the next epoch exceeds what was found."""
        tenant = await self.create("shop")
        while not self.world.liveness.may_renew(tenant["nodeID"], self.world.now):
            await deferLater(reactor, 0.01)
        self.process(tenant["nodeID"]).found = {tenant["id"]: 7}
        _, shown = await self.ask("GET", "/tenants/shop/find")
        self.assertIn("got a new epoch", shown["corrected"][0])
        _, now = await self.ask("GET", "/tenants/shop")
        self.assertEqual(now["epoch"], 8)

    async def test_who_is_silent_is_named(self) -> None:
        """After the deadline, with what the others said."""
        tenant = await self.create("shop")
        self.process(self.other(tenant)).frozen = True
        _, shown = await self.ask("GET", "/tenants/shop/find")
        self.assertEqual(shown["silent"], [self.other(tenant)])
