"""Control groups of the tenants' processes: memory, number of threads, processor time.

A node finds out where it may make groups: below its own of version 2 if the controllers are there
(it moves itself into a leaf, since a group with processes hands no controller on), else below its
own of version 1, each controller for itself. What cannot be had is named with its reason, and the
node runs without it. Each tenant's group is made before its process, which joins it by itself, and
removed after its end. Blocks for some file operations of the kernel's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from pbcluster.node.sandbox.limits import THREADS, Limits

CONTROLLERS = ("memory", "pids", "cpu")
PERIOD_US = 100_000
#: What all tenants together get of a processor that somebody beside their group wants too, where
#: one thread, or the node's own group, has 1024 (version 2: 100). The kernel divides a group's
#: weight among the processors that it runs on.
CORES = len(os.sched_getaffinity(0))
SHARES, WEIGHT = 64 * CORES, 6 * CORES
#: What one tenant has of that beside another one, as a rule and if it fills its limit.
USUAL_SHARES, USUAL_WEIGHT = 1024, 100
LIGHT_SHARES, LIGHT_WEIGHT = 64, 6
#: The kernel's smallest quota is a millisecond.
MIN_QUOTA_US = 1_000
_NO_CONTROLLER = "off: the kernel offers no such controller here"


@attrs.frozen
class Hierarchy:
    """Where groups of some controllers are made.

    :ivar version: 1 or 2. :ivar parent: the node's directory there.
    """

    version: int
    controllers: tuple[str, ...]
    parent: Path


@attrs.frozen
class Group:
    """The groups of one process.

    :ivar paths: its directories. :ivar memory: the one that counts memory, None: none does.
    :ivar version: of that one's hierarchy. :ivar cpu: likewise that limits processor time.
    """

    paths: tuple[Path, ...]
    memory: Path | None
    version: int
    cpu: Path | None = None
    cpu_version: int = 1

    def weigh(self, *, light: bool) -> None:
        """Beside other tenants' groups. :raises OSError: it cannot be set."""
        if self.cpu is None:
            return
        if self.cpu_version == 2:
            _write(self.cpu / "cpu.weight", str(LIGHT_WEIGHT if light else USUAL_WEIGHT))
        else:
            _write(self.cpu / "cpu.shares", str(LIGHT_SHARES if light else USUAL_SHARES))

    @property
    def join_files(self) -> tuple[str, ...]:
        """Where the process writes its id."""
        return tuple(str(path / "cgroup.procs") for path in self.paths)

    def out_of_memory_kills(self) -> int:
        """How often the kernel killed in it for want of memory."""
        if self.memory is None:
            return 0
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        try:
            lines = (self.memory / name).read_text().splitlines()
        except OSError:
            return 0
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    def remove(self) -> None:
        """Remove them; what still has a process stays, and is used again or removed later."""
        for path in self.paths:
            with contextlib.suppress(OSError):
                path.rmdir()


class ControlGroups:
    """The node's part of the tree. :ivar active: controllers that limits are set by.
    :ivar missing: the others, with the reason."""

    def __init__(self, hierarchies: tuple[Hierarchy, ...], missing: Mapping[str, str]) -> None:
        self._hierarchies = hierarchies
        self.active = tuple(name for each in hierarchies for name in each.controllers)
        self.missing = dict(missing)

    def make(self, name: str, limits: Limits) -> Group:
        """A group for one process. :raises OSError: it cannot be made."""
        paths, memory, version = [], None, 1
        cpu, cpu_version = None, 1
        for each in self._hierarchies:
            path = each.parent / name
            with contextlib.suppress(OSError):
                path.rmdir()  # left by a node that was killed; its old limits would be in the way
            path.mkdir(exist_ok=True)
            paths.append(path)
            for file, value in _files(each, limits):
                _write(path / file, value)
            if "memory" in each.controllers:
                memory, version = path, each.version
                _bound_swap(path, each.version, limits.memory_bytes)
            if "cpu" in each.controllers:
                cpu, cpu_version = path, each.version
        return Group(tuple(paths), memory, version, cpu, cpu_version)

    def close(self) -> None:
        """Remove the node's own directories, empty by now."""
        for each in self._hierarchies:
            with contextlib.suppress(OSError):
                for left in each.parent.iterdir():
                    if left.is_dir():
                        with contextlib.suppress(OSError):
                            left.rmdir()
                each.parent.rmdir()


def _files(where: Hierarchy, limits: Limits) -> list[tuple[str, str]]:
    """What to write into a new group."""
    quota = max(MIN_QUOTA_US, int(limits.cpu_share * PERIOD_US))
    two = where.version == 2
    wanted = {
        "memory": [("memory.max" if two else "memory.limit_in_bytes", str(limits.memory_bytes))],
        "pids": [("pids.max", str(THREADS))],
        "cpu": [("cpu.max", f"{quota} {PERIOD_US}")]
        if two
        else [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(quota))],
    }
    return [row for name in where.controllers for row in wanted[name]]


def _bound_swap(path: Path, version: int, memory_bytes: int) -> None:
    """Swap is no way around the limit; kernels without its accounting lack the file."""
    file, value = ("memory.swap.max", 0) if version == 2 else ("memory.memsw.limit_in_bytes", None)
    with contextlib.suppress(OSError):
        _write(path / file, str(memory_bytes if value is None else value))


def _write(file: Path, value: str) -> None:
    # The files are the kernel's and exist; a plain open with O_CREAT would make some in a test's.
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def find(data_dir: Path, proc: Path = Path("/proc")) -> ControlGroups:
    """What this process may use.

    :param data_dir: the node's; its name becomes the groups'.
    """
    own = "pbcluster-" + hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:12]
    try:
        memberships = (proc / "self/cgroup").read_text().splitlines()
        mounts = (proc / "self/mountinfo").read_text().splitlines()
    except OSError as error:
        return ControlGroups((), dict.fromkeys(CONTROLLERS, f"off: {error.strerror}"))
    missing = dict.fromkeys(CONTROLLERS, _NO_CONTROLLER)
    found: list[Hierarchy] = []
    for path, controllers, version in _own_groups(memberships, mounts):
        wanted = [name for name in controllers if name in missing]
        if not wanted:
            continue
        try:
            parent = _prepare(path, own, version, wanted)
        except OSError as error:
            missing |= dict.fromkeys(wanted, f"off: {path}: {error.strerror}")
            continue
        found.append(Hierarchy(version, tuple(wanted), parent))
        for name in wanted:
            del missing[name]
    return ControlGroups(tuple(found), missing)


def _own_groups(
    memberships: list[str], mounts: list[str]
) -> list[tuple[Path, tuple[str, ...], int]]:
    """(our directory, its controllers, version) of each hierarchy that is mounted."""
    found = []
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        root, point = fields.split(" ")[3:5]
        if kind == "cgroup2":
            member = next((row[3:] for row in memberships if row.startswith("0::")), None)
            names: tuple[str, ...] = ()
        elif kind == "cgroup":
            names = tuple(set(options.rpartition(" ")[2].split(",")) & set(CONTROLLERS))
            member = next(
                (
                    row.split(":", 2)[2]
                    for row in memberships
                    if names and set(row.split(":", 2)[1].split(",")) >= set(names)
                ),
                None,
            )
        else:
            continue
        if member is None:
            continue
        path = Path(point) / os.path.relpath(member, root).removeprefix("../")
        if kind == "cgroup2":
            with contextlib.suppress(OSError):
                names = tuple((path / "cgroup.controllers").read_text().split())
        found.append((path, names, 2 if kind == "cgroup2" else 1))
    return found


def _prepare(path: Path, own: str, version: int, controllers: list[str]) -> Path:
    """Make the node's directory below its own group. :raises OSError: it may not."""
    parent = path / own
    parent.mkdir(exist_ok=True)
    if version == 2:
        leaf = path / f"{own}-node"
        leaf.mkdir(exist_ok=True)
        _write(leaf / "cgroup.procs", str(os.getpid()))
        enable = " ".join(f"+{name}" for name in controllers)
        _write(path / "cgroup.subtree_control", enable)
        _write(parent / "cgroup.subtree_control", enable)
    elif not os.access(parent / "cgroup.procs", os.W_OK):
        raise PermissionError(13, "not writable")
    if "cpu" in controllers:
        file, value = ("cpu.weight", WEIGHT) if version == 2 else ("cpu.shares", SHARES)
        with contextlib.suppress(OSError):  # fairness; the limits hold without it
            _write(parent / file, str(value))
    return parent
