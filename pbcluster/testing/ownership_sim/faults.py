"""What goes wrong, drawn from the world's seed, and how it is made well again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import msgspec

from pbcluster.controlplane import commands as c
from pbcluster.node.claims import owner_key
from pbcluster.node.interfaces import Owner, OwnerState
from pbcluster.node.parts import spawn
from pbcluster.testing.ownership_sim.plane import wall_clock
from pbcluster.testing.ownership_sim.process import NodeProcess
from pbcluster.testing.ownership_sim.storage import SimDisk, Weather

if TYPE_CHECKING:
    from pbcluster.testing.ownership_sim.world import World

#: Something happens to each node about so often.
NODE_FAULT_S = 2.0
#: And to what they share.
SHARED_FAULT_S = 5.0
PAUSES_S = (0.3, 1.0, 2.2, 3.0, 6.0)
#: A replaced process that wakes up again does harm at once or not at all.
ZOMBIE_S = 12.0


class Faults:
    """See the module."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._away_until = 0.0
        self._buries = self._random.random() < 0.15
        kinds: list[tuple[int, Callable[[NodeProcess], None]]] = [
            (26, self._pause),
            (16, self._cut),
            (12, self._slow_s3),
            (8, self._lossy_s3),
            (6, self._s3_away),
            (3, self._s3_refuses),
            (6, self._image),
            (10, self._kill),
            (4, self._replace),
            (4, self._crash),
            (3, self._litestream_dies),
            (3, self._replace_database),
            (10, self._heal),
        ]
        self._kinds = [kind for weight, kind in kinds for _ in range(weight)]
        for name in world.current:
            world.every(NODE_FAULT_S, lambda name=name: self._happens(name))  # type: ignore[misc]
        world.every(SHARED_FAULT_S, self._shared)

    def _happens(self, name: str) -> None:
        process = self._world.current[name]
        if self._world.well or process.clock.dead:
            return
        kind = self._random.choice(self._kinds)
        self._tell(name, kind.__name__.strip("_"))
        kind(process)

    def _tell(self, who: str, what: str) -> None:
        self._world.trace.add(self._world.now, who, f"fault: {what}")

    # -- of one node --

    def _pause(self, process: NodeProcess) -> None:
        process.clock.paused_until = self._world.now + self._random.choice(PAUSES_S)

    def _cut(self, process: NodeProcess) -> None:
        network, name = self._world.network, process.name
        for way in (network.cut_to, network.cut_from):
            if self._random.random() < 0.6:
                way.symmetric_difference_update({name})

    def _slow_s3(self, process: NodeProcess) -> None:
        process.weather.slow = self._random.choice((1.0, 3.0, 10.0))

    def _lossy_s3(self, process: NodeProcess) -> None:
        process.weather.loss = self._random.choice((0.05, 0.2, 0.4))

    def _s3_away(self, process: NodeProcess) -> None:
        process.weather.down = not process.weather.down

    def _s3_refuses(self, process: NodeProcess) -> None:
        which = self._random.choice(("refused", "broken"))
        setattr(process.weather, which, True)
        self._world.later(1.0, setattr, process.weather, which, False)

    def _image(self, process: NodeProcess) -> None:
        process.disk.saved = process.disk.image()

    def _crash(self, process: NodeProcess) -> None:
        for workload in list(process.fake.workloads.running.values()):
            if workload.alive:
                process.clock.callLater(0, workload.end)

    def _litestream_dies(self, process: NodeProcess) -> None:
        process.clock.callLater(0, process.fake.replication.lose)

    def _replace_database(self, process: NodeProcess) -> None:
        """A hook of the tenant's restores a backup: another file takes data.db's place."""

        def replace() -> None:
            for workload in list(process.fake.workloads.running.values()):
                found = process.disk.databases.get(workload.database)
                if workload.alive and found is not None:
                    workload.replace_database(found.rows[: len(found.rows) // 2])
                    process.disk.replaced.add(process.disk.databases[workload.database].inode)
                    # PocketBase moves everything that stood in its directory away.
                    process.disk.metadata.pop(workload.database, None)

        process.clock.callLater(0, replace)

    def _heal(self, process: NodeProcess) -> None:
        network = self._world.network
        network.cut_to.discard(process.name)
        network.cut_from.discard(process.name)
        _clear(process.weather)

    def _kill(self, process: NodeProcess) -> None:
        disk, random = process.disk, self._random
        orphans = random.random() < 0.4
        process.die(orphans=orphans)
        self._world.clients.died()
        if not orphans and random.random() < 0.3:
            disk.boot += 1
            self._lose_disk(process)
        if not orphans and disk.saved and random.random() < 0.5:
            disk.revert(disk.saved)
            disk.saved = b""
            self._lose_disk(process)
        self._world.later(0.3 + random.random() * 2.5, self._start_again, process, orphans)

    def _lose_disk(self, process: NodeProcess) -> None:
        """What only this disk had may die with the machine."""
        for tenant_id, journal in self._world.journals.items():
            if self._world.plane.registry.tenant(tenant_id).node_id == process.name:
                journal.disk_lost()

    def _start_again(self, before: NodeProcess, orphans: bool) -> None:
        process = self._world.boot(before.name, before.disk)
        process.weather = process.client.weather = before.weather
        if self._world.well:
            _clear(process.weather)
        if orphans:
            # Some cannot be ended at once, as in an uninterruptible sleep: the lock stays.
            process.inherit(before)
            lasting = self._random.random() < 0.6
            self._world.later(3.0 if lasting else 0.0, self._orphans_end, before)

    def _orphans_end(self, before: NodeProcess) -> None:
        """Also as far as they were handed down to later starts."""
        for each in self._world.processes:
            if each.disk is before.disk and each is not before:
                each.orphans_end(before)
        before.fake.workloads.running.clear()
        before.fake.directories.locks.clear()

    def _replace(self, process: NodeProcess) -> None:
        """The node is started on another machine while this one stands still, then wakes up."""
        process.clock.paused_until = self._world.now + self._random.choice(PAUSES_S)
        self._lose_disk(process)
        self._world.boot(process.name, SimDisk())
        self._world.later(ZOMBIE_S, self._end_zombie, process)

    def _end_zombie(self, process: NodeProcess) -> None:
        if not process.clock.dead:
            process.die(orphans=False)
            self._world.clients.died()

    # -- of all --

    def _shared(self) -> None:
        world, random = self._world, self._random
        if world.well:
            return
        chance = random.random()
        if chance < 0.3:
            self._tell("member", "the leader falls")
            world.plane.consensus.fall()
            world.later(0.1 + random.random() * 1.5, world.plane.consensus.rise)
        elif chance < 0.4:
            self._tell("s3", "an outage for all")
            for process in world.living:
                process.weather.down = True
            world.later(random.choice((2.0, 7.0)), self._s3_back)
        elif chance < 0.5 and self._buries:
            self._bury()

    def _s3_back(self) -> None:
        for process in self._world.living:
            process.weather.down = False

    def _bury(self) -> None:
        """A tenant is deleted: its owner object becomes a tombstone (a model of rule 10). Its
        control plane does not know of it, as one that was put back to an older state."""
        world = self._world
        tenant_id = self._random.choice(list(world.journals))
        owner = world.bucket.owner(tenant_id)
        if owner is None or tenant_id in world.tombstones:
            return
        self._tell("operator", f"buries {tenant_id}")
        world.tombstones.add(tenant_id)
        stone = Owner(
            epoch=owner.epoch,
            node="operator",
            incarnation=0,
            nonce=f"tombstone-{tenant_id}",
            state=OwnerState.DELETED,
        )
        world.bucket.bury(tenant_id, owner_key(tenant_id), msgspec.json.encode(stone))

    # -- the end --

    def end(self) -> None:
        """Everything is well again, from now on."""
        world = self._world
        self._tell("world", "all is well")
        world.network.cut_to.clear()
        world.network.cut_from.clear()
        world.plane.consensus.rise()
        for process in world.living:
            process.clock.paused_until = min(process.clock.paused_until, world.now)
            _clear(process.weather)
            if world.current[process.name] is not process:
                self._end_zombie(process)
        world.later(20.0, self._operator_gives_away)

    def _operator_gives_away(self) -> None:
        """What is degraded still has lost its disk: an operator accepts that."""
        world = self._world
        for tenant_id, journal in world.journals.items():
            record = world.plane.registry.tenant(tenant_id)
            if record.degraded and tenant_id not in world.tombstones:
                self._tell("operator", f"gives {tenant_id} away")
                journal.local_lost()
                command = c.GiveAway(wall_clock(), tenant_id, record.epoch)
                spawn(world.plane.consensus.propose(command), "an operator")


def _clear(weather: Weather) -> None:
    for field in attrs.fields(Weather):
        setattr(weather, field.name, field.default)
