"""Chooses how this node's tenants are confined, and starts a process so.

What holds:

* Without a mechanism that works here, :meth:`Sandbox.prepare` raises, unless the operator said that
  there shall be none.
* A process that is not confined never becomes PocketBase: what fails between fork and exec ends the
  child, and :meth:`Started.check` looks once more at what the kernel says of it.
* What is active, and what is not and why, is in :attr:`Sandbox.report`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.interfaces import IReactorTime

from pbcluster.errors import ConfigError, ProcessFailed
from pbcluster.node.sandbox import bubblewrap, landlock, rules
from pbcluster.node.sandbox.balance import Balance
from pbcluster.node.sandbox.belongings import closed_ancestor, hand_over
from pbcluster.node.sandbox.cgroups import ControlGroups, Group, find
from pbcluster.node.sandbox.confine import Confinement, enter
from pbcluster.node.sandbox.filter import program
from pbcluster.node.sandbox.limits import Limits, resource_limits
from pbcluster.node.sandbox.syscalls import MACHINES
from pbcluster.node.sandbox.uids import BLOCK_FACTOR, MIN_BLOCK, TenantUsers, lock_block
from pbcluster.processes import Child, clipped, start_child
from pbcluster.records import TenantQuotas

LANDLOCK, BUBBLEWRAP, AUTO, NONE = "landlock", "bubblewrap", "auto", "none"
MODES = (AUTO, LANDLOCK, BUBBLEWRAP)
_HINT = (
    "insecure_no_sandbox = true (--insecure-no-sandbox=true) runs tenants without one: set it only "
    "if you trust all of them"
)


@attrs.frozen(kw_only=True)
class SandboxSettings:
    """What the operator wants.

    :ivar mode: one of :data:`MODES`. :ivar insecure: no sandbox at all.
    :ivar users: first and last uid for tenants of a node that is root; None: no users of their own.
    :ivar capacity: tenants at once. :ivar limits: for tenants whose quotas name none.
    """

    mode: str = AUTO
    insecure: bool = False
    users: tuple[int, int] | None = None
    capacity: int = 200
    limits: Limits = Limits(memory_bytes=512 * 2**20, cpu_share=1.0, file_bytes=64 * 2**30)


@attrs.frozen(kw_only=True)
class Wanted:
    """One start.

    :ivar directory: the tenant's, with its folders. :ivar port: that it listens at.
    :ivar connect: TCP ports that it may connect to. :ivar lock: descriptor to inherit.
    """

    tenant_id: str
    directory: Path
    port: int
    argv: Sequence[str]
    env: Mapping[str, str]
    connect: tuple[int, ...] = ()
    quotas: TenantQuotas = TenantQuotas()
    lock: int | None = None


@attrs.frozen(kw_only=True)
class Plan:
    """One start, prepared: what the child needs beyond what it can make itself.

    :ivar inherited: descriptors for the child's 3, 4, …; :ivar opened: those of them made for it.
    """

    argv: list[str]
    inherited: tuple[int, ...]
    opened: tuple[int, ...]
    confinement: Confinement
    group: Group | None
    limits: Limits

    def close(self) -> None:
        """After the start: close what was made for it."""
        for fd in self.opened:
            os.close(fd)


class Started:
    """A process in its sandbox.

    :ivar child: what we started (bubblewrap itself, perhaps).
    :ivar reason: why it ended, with the limit that it met; None while it runs.
    """

    def __init__(
        self, child: Child, group: Group | None, *, mechanism: str, limits: Limits
    ) -> None:
        self.child = child
        self.reason: str | None = None
        self._group = group
        self._mechanism = mechanism
        self._limits = limits
        self._kills_before = group.out_of_memory_kills() if group is not None else 0
        child.when_ended(self._ended)

    @property
    def pid(self) -> int | None:
        """PocketBase's own process id; None: bubblewrap did not start it yet."""
        if self._mechanism == BUBBLEWRAP:
            return bubblewrap.inner(self.child.pid)
        return self.child.pid

    def check(self) -> None:
        """:raises ProcessFailed: the kernel does not call it confined."""
        if self._mechanism == NONE:
            return
        rows = dict(_status_rows(self.pid or 0))
        if rows.get("NoNewPrivs") != "1" or rows.get("Seccomp") != "2":
            raise ProcessFailed(f"{self.child.name} runs outside its sandbox")

    def _ended(self, reason: str) -> None:
        self.reason = reason
        if self._group is None:
            return
        kills = self._group.out_of_memory_kills() - self._kills_before
        self._group.remove()
        if kills > 0:
            self.reason += f" at its memory limit of {self._limits.memory_bytes} bytes"

    def terminate(self) -> None:
        """SIGTERM to PocketBase itself."""
        if self._mechanism == BUBBLEWRAP:
            bubblewrap.signal_inner(self.child.pid, signal.SIGTERM)
        else:
            self.child.signal(signal.SIGTERM)


def _status_rows(pid: int) -> Iterable[tuple[str, str]]:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            yield name, value.strip()


def default_sandbox(data_dir: Path, binary: Path) -> Sandbox:
    """One with the default settings, prepared. :raises ConfigError: none works here."""
    sandbox = Sandbox(SandboxSettings(), data_dir, binary)
    sandbox.prepare()
    return sandbox


class Sandbox:
    """See the module. Call :meth:`prepare` before anything else.

    :ivar mechanism: landlock, bubblewrap or none.
    :ivar report: part → "on", or why it is not.
    """

    def __init__(
        self,
        settings: SandboxSettings,
        data_dir: Path,
        binary: Path,
        known: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        """
        :param binary: PocketBase. :param known: tenants that have a directory here.
        """
        self._settings = settings
        self._data_dir = data_dir.absolute()
        self._known = known
        self._groups = ControlGroups((), {})
        self._balance: Balance | None = None
        self._users: TenantUsers | None = None
        self._user_lock: int | None = None
        self._bwrap: str | None = None
        self._filter = b""
        self.binary = binary.absolute()
        self.mechanism = NONE
        self.report: dict[str, str] = {}

    # -- before the first start --

    def prepare(self) -> None:
        """Find out what works here. Blocks for some milliseconds.

        :raises ConfigError: no sandbox works here, or the users cannot be had.
        """
        settings = self._settings
        self._groups = find(self._data_dir)
        for name in self._groups.active:
            self.report[name] = "on"
        self.report |= self._groups.missing
        if settings.insecure:
            self.report["sandbox"] = "off: insecure_no_sandbox is set"
            return
        machine = MACHINES.get(os.uname().machine)
        if machine is None:
            known = ", ".join(MACHINES)
            raise ConfigError(
                f"no sandbox for {os.uname().machine} (there is one for {known}); {_HINT}"
            )
        self._filter = program(machine)
        self._prepare_users()
        self.mechanism = self._choose()
        self.report |= {"sandbox": self.mechanism, "seccomp": "on"}

    def _choose(self) -> str:
        problems = []
        if self._settings.mode in (AUTO, LANDLOCK):
            found = landlock.abi()
            if found >= rules.MIN_ABI:
                return LANDLOCK
            problems.append(
                f"this kernel has Landlock version {found}, {rules.MIN_ABI} is needed (Linux 6.12)"
                if found
                else "this kernel has no Landlock (it may be missing in the boot option lsm=)"
            )
        if self._settings.mode in (AUTO, BUBBLEWRAP):
            self._bwrap = bubblewrap.find()
            why = "it is not installed"
            if self._bwrap is not None:
                user = None
                if self._users is not None:
                    user = (self._users.first, self._users.first)
                why = bubblewrap.cannot(self._bwrap, user)
                if not why:
                    return BUBBLEWRAP
            problems.append(f"bubblewrap cannot be used: {why}")
        raise ConfigError(f"no sandbox works here: {'; '.join(problems)}; {_HINT}")

    def _prepare_users(self) -> None:
        wanted = self._settings.users
        if os.geteuid() != 0:
            self.report["users"] = "off: the node is not root"
            return
        if wanted is None:
            self.report["users"] = "off: tenant_uids is empty"
            return
        closed = closed_ancestor(self._data_dir)
        if closed is not None:
            self.report["users"] = f"off: other users cannot pass through {closed}"
            return
        size = max(MIN_BLOCK, self._settings.capacity * BLOCK_FACTOR)
        first, self._user_lock = lock_block(*wanted, size)
        os.chmod(self._data_dir, 0o711)
        os.chmod(self._data_dir / "tenants", 0o711)
        self.binary = self._reachable(self.binary)
        self._users = TenantUsers(self._data_dir, range(first, first + size), self._known)
        self.report["users"] = "on"

    def _reachable(self, binary: Path) -> Path:
        """The binary, or a copy that other users can execute."""
        mode = binary.stat().st_mode
        readable = stat.S_IROTH | stat.S_IXOTH
        if closed_ancestor(binary) is None and mode & readable == readable:
            return binary.resolve()
        folder = self._data_dir / "bin"
        folder.mkdir(mode=0o755, exist_ok=True)
        os.chmod(folder, 0o755)
        copy, beside = folder / "pocketbase", folder / ".pocketbase.new"
        shutil.copyfile(binary, beside)
        os.chmod(beside, 0o755)
        beside.rename(copy)
        return copy

    # -- a start --

    def plan(self, wanted: Wanted) -> Plan:
        """Make all that a start needs; the caller closes it.

        :raises OSError: the kernel refuses a part. :raises StorageCorrupt: a folder is none.
        """
        limits = self._settings.limits.of(wanted.quotas)
        inherited = () if wanted.lock is None else (wanted.lock,)
        place = 3 + len(inherited)
        paths = rules.path_rules(wanted.directory, self.binary)
        user = self._hand_over(wanted)
        memory_group = "memory" in self._groups.active
        bounds = resource_limits(limits, memory_group=memory_group, own_user=user is not None)
        argv, opened = list(wanted.argv), tuple[int, ...]()
        if self.mechanism == LANDLOCK:
            opened = (landlock.ruleset(paths, rules.port_rules(wanted.port, wanted.connect)),)
        elif self.mechanism == BUBBLEWRAP:
            assert self._bwrap is not None
            opened = (bubblewrap.filter_pipe(self._filter),)
            argv = bubblewrap.command(self._bwrap, paths, wanted.directory, place, argv)
        try:
            group = self._groups.make(wanted.tenant_id, limits) if self._groups.active else None
        except OSError:
            for fd in opened:
                os.close(fd)
            raise
        confinement = Confinement(
            parent=os.getpid(),
            cgroup_files=group.join_files if group is not None else (),
            limits=clipped(bounds),
            user=user,
            ruleset=place if self.mechanism == LANDLOCK else None,
            filter=self._filter if self.mechanism == LANDLOCK else None,
        )
        return Plan(
            argv=argv,
            inherited=(*inherited, *opened),
            opened=opened,
            confinement=confinement,
            group=group,
            limits=limits,
        )

    def start(
        self,
        reactor: Any,
        wanted: Wanted,
        on_line: Callable[[str], None] | None = None,
        max_bytes_per_s: int = 0,
    ) -> Started:
        """Start it.

        :param on_line: told every line that it prints. :param max_bytes_per_s: of what it prints;
            with more it waits. 0: any.
        :param reactor: ``IReactorProcess`` and ``IReactorTime``; call it from the main thread.
        :raises ProcessFailed: it cannot be started.
        """
        name = f"pocketbase of {wanted.tenant_id}"
        try:
            plan = self.plan(wanted)
        except OSError as error:
            raise ProcessFailed(f"cannot confine {name}: {error}") from None
        try:
            child = start_child(
                reactor,
                name,
                plan.argv,
                wanted.env,
                directory=wanted.directory,
                inherited=plan.inherited,
                on_line=on_line,
                max_bytes_per_s=max_bytes_per_s,
                prepare=partial(enter, plan.confinement),
            )
        except BaseException:
            if plan.group is not None:
                plan.group.remove()
            raise
        finally:
            plan.close()
        started = Started(child, plan.group, mechanism=self.mechanism, limits=plan.limits)
        self._weigh(reactor, wanted.tenant_id, started, plan)
        return started

    def _weigh(self, clock: IReactorTime, tenant: str, started: Started, plan: Plan) -> None:
        """Weigh it beside other tenants' for as long as it runs."""
        group = plan.group
        if group is None or group.cpu is None:
            return
        balance = self._balance = self._balance or Balance(clock)
        balance.add(tenant, lambda: started.pid, plan.limits.cpu_share, group)
        started.child.when_ended(lambda reason: balance.remove(tenant, group))

    def _hand_over(self, wanted: Wanted) -> tuple[int, int] | None:
        if os.geteuid() != 0:
            return None
        if self._users is None:
            hand_over(wanted.directory, 0, 0)  # another start may have given it to a user
            return None
        uid = self._users.of(wanted.tenant_id)
        hand_over(wanted.directory, uid, uid)
        return uid, uid

    def close(self) -> None:
        """After every process ended: give back the users and the groups."""
        self._groups.close()
        fd, self._user_lock = self._user_lock, None
        if fd is not None:
            os.close(fd)
