"""How each fault of a schedule is done, and how everything is healed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from pbcluster.errors import PBClusterError
from pbcluster.raft import ConfState, MemberId
from pbcluster.testing.raft_sim.member import SimMember
from pbcluster.testing.raft_sim.operations import burst
from pbcluster.testing.raft_sim.schedule import Fault

if TYPE_CHECKING:
    from pbcluster.testing.raft_sim.world import World


def _living(world: World) -> list[SimMember]:
    return [one for one in world.members.values() if not one.wiped and not one.removed]


def _pick(world: World, number: int) -> SimMember:
    living = _living(world)
    return living[number % len(living)]


def strike(world: World, fault: Fault) -> None:
    """Do ``fault``."""
    _STRIKES[fault.kind](world, fault)


# -- processes ------------------------------------------------------------------------------------


def _crash(world: World, fault: Fault) -> None:
    member = _pick(world, fault.first)
    member.crash(fault.second % 4)
    world.after(20 + 12 * fault.second, partial(_restart, world), member)


def _restart(world: World, member: SimMember) -> None:
    if member.process is None and not member.wiped and not member.removed:
        world.trace(f"{member.id} restarts")
        member.start()


def _stop(world: World, fault: Fault) -> None:
    """Ended in order, as by an operator."""
    member = _pick(world, fault.first)
    member.stop()
    world.after(100 + 8 * fault.second, partial(_restart, world), member)


def _restart_all(world: World, fault: Fault) -> None:
    """A power failure."""
    for number, member in enumerate(_living(world)):
        member.crash((fault.second + number) % 3)
        world.after(30 + fault.first, partial(_restart, world), member)


def _pause(world: World, fault: Fault) -> None:
    _pick(world, fault.first).pause(20 + 6 * fault.second)


def _pause_leader(world: World, fault: Fault) -> None:
    leader = world.operator.leader()
    if leader is not None:
        leader.pause(60 + 5 * fault.second)


def _flap(world: World, fault: Fault) -> None:
    """The connections of one member end and are there again: to all others, or to one."""
    gone = _pick(world, fault.first)
    names = [one.id for one in _living(world) if one is not gone]
    for name in names if fault.second % 2 else names[:1]:
        process = world.members[name].process
        if process is not None:
            process.connection_lost(gone.id)


# -- network --------------------------------------------------------------------------------------


def isolate(world: World, name: MemberId) -> None:
    """Cut all links of ``name``."""
    for other in world.members:
        if other != name:
            world.network.cut.add((name, other))
            world.network.cut.add((other, name))


def _isolate(world: World, fault: Fault) -> None:
    isolate(world, _pick(world, fault.first).id)


def _isolate_leader(world: World, _fault: Fault) -> None:
    leader = world.operator.leader()
    if leader is not None:
        isolate(world, leader.id)


def _one_way(world: World, fault: Fault) -> None:
    """One member hears nobody, or nobody hears it."""
    name = _pick(world, fault.first).id
    for other in world.members:
        if other != name:
            world.network.cut.add((name, other) if fault.second % 2 else (other, name))


def _split(world: World, fault: Fault) -> None:
    """Two sides that do not hear each other."""
    names = [one.id for one in _living(world)]
    for a_position, a in enumerate(names):
        for b_position, b in enumerate(names):
            if (fault.first >> a_position & 1) != (fault.first >> b_position & 1):
                world.network.cut.add((a, b))


def _minority_leader(world: World, fault: Fault) -> None:
    """The leader, alone or with one other, on the smaller side: what it appends will conflict."""
    leader = world.operator.leader()
    if leader is None:
        return
    side = {leader.id}
    if len(world.operator.conf().voters) > 3 and fault.first % 2:
        side.add(_pick(world, fault.second).id)
    for a in world.members:
        for b in world.members:
            if (a in side) != (b in side):
                world.network.cut.add((a, b))
    world.after(100 + 4 * fault.second, lambda _n: world.network.calm(), None)


def _late_answers(world: World, fault: Fault) -> None:
    """Answers reach the leader later and later, and then it is heard by nobody: it believes to
    lead, by what arrives so late, while another is elected."""
    leader = world.operator.leader()
    if leader is None:
        return
    most = world.profile.election_time + 80 + 3 * fault.first
    world.network.slow_to[leader.id] = (world.now, most)
    world.after(2 * most + fault.second, partial(_cut_outgoing, world), leader.id)


def _cut_outgoing(world: World, name: MemberId) -> None:
    if name in world.network.slow_to:
        world.network.cut.update((name, other) for other in world.members if other != name)


def _cut_link(world: World, fault: Fault) -> None:
    a, b = _pick(world, fault.first).id, _pick(world, fault.second).id
    if a != b:
        world.network.cut.add((a, b))
        if fault.first % 2:
            world.network.cut.add((b, a))


def _lag(world: World, fault: Fault) -> None:
    """A member is away until it needs a snapshot, and its disk is slow when it is back."""
    name = _pick(world, fault.first).id
    isolate(world, name)
    world.after(200 + 8 * fault.second, partial(_lag_behind, world), name)


def _lag_behind(world: World, name: MemberId) -> None:
    if not world.healed:
        world.network.calm()
        world.slow_until[name] = world.now + 600


def _heal(world: World, _fault: Fault) -> None:
    world.network.calm()


def _lossy(world: World, fault: Fault) -> None:
    world.network.loss = 10 + 4 * fault.first
    world.network.doubling = 5 * fault.second


def _delays(world: World, fault: Fault) -> None:
    world.network.long_delay = 10 + 3 * fault.first


# -- disks and membership -------------------------------------------------------------------------


def _slow_disk(world: World, fault: Fault) -> None:
    world.slow_until[_pick(world, fault.first).id] = world.now + 10 * fault.second


def _hang_disk(world: World, fault: Fault) -> None:
    """No fsync returns for a while; the leader's, half of the time."""
    leader = world.operator.leader()
    name = _pick(world, fault.first).id if leader is None or fault.first % 2 else leader.id
    world.hanging = name
    world.after(200 + 10 * fault.second, partial(_disk_goes_on, world), name)


def _disk_goes_on(world: World, name: MemberId) -> None:
    if world.hanging == name and not world.healed:
        world.hanging = ""


def _disk_error(world: World, fault: Fault) -> None:
    member = _pick(world, fault.first)
    world.failing.add(member.id)
    world.after(300, partial(_restart, world), member)


def _member_change(world: World, fault: Fault) -> None:
    world.operator.random_change(fault.first, fault.second)


def _replace_two(world: World, fault: Fault) -> None:
    world.operator.replace_two(fault.first)


def _wipe(world: World, fault: Fault) -> None:
    world.operator.wipe(fault.first)


def _burst(world: World, fault: Fault) -> None:
    """More proposals at once than the bound on uncommitted bytes lets in."""
    leader = world.operator.leader()
    if leader is None or leader.process is None:
        return

    def ask() -> None:
        for number in range(fault.second, fault.second + 5 + fault.first % 10):
            Deferred.fromCoroutine(leader.raft.propose(burst(number))).addErrback(_unheard)

    leader.process.ask(ask)


def _unheard(failure: Failure) -> None:
    failure.trap(PBClusterError)


def _full_disk(world: World, fault: Fault) -> None:
    """A member refuses proposals for a while; the leader, half of the time."""
    leader = world.operator.leader()
    name = _pick(world, fault.first).id if leader is None or fault.first % 2 else leader.id
    world.full = name
    world.after(50 + 4 * fault.second, partial(_room_again, world), name)


def _room_again(world: World, name: MemberId) -> None:
    if world.full == name:
        world.full = ""


def _transfer(world: World, fault: Fault) -> None:
    world.operator.transfer(fault.first)


_STRIKES: dict[str, Callable[[World, Fault], None]] = {
    "crash": _crash,
    "stop": _stop,
    "restart_all": _restart_all,
    "isolate": _isolate,
    "isolate_leader": _isolate_leader,
    "one_way": _one_way,
    "split": _split,
    "minority_leader": _minority_leader,
    "late_answers": _late_answers,
    "cut_link": _cut_link,
    "flap": _flap,
    "lag": _lag,
    "heal": _heal,
    "pause": _pause,
    "pause_leader": _pause_leader,
    "slow_disk": _slow_disk,
    "hang_disk": _hang_disk,
    "disk_error": _disk_error,
    "full_disk": _full_disk,
    "lossy": _lossy,
    "delays": _delays,
    "transfer": _transfer,
    "member_change": _member_change,
    "replace_two": _replace_two,
    "wipe": _wipe,
    "burst": _burst,
}

# -- the end --------------------------------------------------------------------------------------


def heal_everything(world: World) -> None:
    """No fault any more: links whole, everyone runs at full speed."""
    world.network.calm()
    world.slow_until.clear()
    world.failing.clear()
    world.hanging = world.full = ""
    for member in _living(world):
        member.resume(member.process)
        _restart(world, member)


def cut_one_way_minority(world: World) -> None:
    """One member hears nobody, for as long as the others must show progress."""
    names = [one.id for one in _living(world)]
    name = names[world.fault_random.randrange(len(names))]
    if _losing_one_stops(world, name, world.operator.conf()):
        return
    for other in world.members:
        if other != name:
            world.network.cut.add((other, name))


def hang_leader_disk(world: World) -> None:
    """The leader's next fsync does not return in time; without it the rest is a majority."""
    leader = world.operator.leader()
    conf = world.operator.conf()
    if leader is not None and not _losing_one_stops(world, leader.id, conf):
        world.hanging = leader.id


def _losing_one_stops(world: World, name: MemberId, conf: ConfState) -> bool:
    """Whether the group could not go on without ``name``, now or after a change under way."""
    changing = any(
        one.core is not None and one.core._raft.log.has_config_in(one.applied, 2**62)
        for one in world.members.values()
    )
    left = len(conf.voters) - (name in conf.voters)
    return changing or conf.joint or world.operator.busy() or left <= len(conf.voters) // 2


def reconnect(world: World) -> None:
    """The last links and disks are whole again."""
    world.hanging = ""
    world.network.calm()
