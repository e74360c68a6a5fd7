"""Processes of a measure: started on a core, weighed, ended by their ids."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.figures import parse_stat_ticks, parse_status_kb

WITHIN_S = 60.0
#: Descriptors of every process that needs many, if the hard limit allows.
FILES = 100_000
_TICKS_S = os.sysconf("SC_CLK_TCK")
#: Debian's package of each program.
PACKAGES = {
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "wrk": "wrk",
    "taskset": "util-linux",
    "openssl": "openssl",
    "gcc": "gcc libc6-dev",
}


def program(name: str) -> str:
    """Path of a program, also where only root's PATH has it.

    :raises SystemExit: it is not installed; says which package has it.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=path)
    if found is None:
        raise SystemExit(f"{name} is not installed: apt-get install {PACKAGES[name]}")
    return found


def missing(names: Iterable[str], find: Callable[[str], object] = program) -> list[str]:
    """Packages of those programs that are not installed.

    :param find: raises SystemExit for one that is not.
    """
    lacking = set()
    for name in names:
        try:
            find(name)
        except SystemExit:
            lacking.add(PACKAGES[name])
    return sorted(lacking)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody has now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def raise_limit(wanted: int = FILES) -> int:
    """Let this process and its children have ``wanted`` descriptors, or as many as may be.

    :returns: how many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        return wanted
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    return hard


def on_core(core: int | None, argv: Sequence[str]) -> list[str]:
    """``argv`` on one core; None: wherever the kernel likes."""
    return list(argv) if core is None else [program("taskset"), "-c", str(core), *argv]


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found, at = [pid], 0
    while at < len(found):
        for file in Path(f"/proc/{found[at]}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in file.read_text().split()]
        at += 1
    return found


def cpu_s(*pids: int) -> float:
    """Processor time, user and system, of these processes with all their threads."""
    ticks = 0
    for each in pids:
        with contextlib.suppress(OSError):
            ticks += parse_stat_ticks(Path(f"/proc/{each}/stat").read_text())
    return ticks / _TICKS_S


def memory_kb(*pids: int, name: str = "VmRSS") -> int:
    """Resident memory of these processes; pages that they share count several times.

    :param name: ``VmHWM`` for the most that they had since :func:`forget_peak`.
    """
    total = 0
    for each in pids:
        with contextlib.suppress(OSError, ValueError):
            total += parse_status_kb(Path(f"/proc/{each}/status").read_text(), name)
    return total


def descriptors(*pids: int) -> int:
    """Open descriptors of these processes."""
    total = 0
    for each in pids:
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{each}/fd"))
    return total


def forget_peak(*pids: int) -> None:
    """The highest memory of these processes counts from now on (proc_pid_clear_refs(5))."""
    for each in pids:
        Path(f"/proc/{each}/clear_refs").write_text("5")


def pin(pid: int, *cores: int) -> None:
    """Bring a process that runs, with all its threads, to these cores."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(thread.name), cores)


def wait_until(happened: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
    """:raises TimeoutError: it did not."""
    until = time.monotonic() + within_s
    while not happened():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {within_s:.0f} s for {what}")
        time.sleep(0.02)


def listening(port: int) -> bool:
    """Whether somebody takes connections at a port of the loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


class Running:
    """A program that was started here; its output goes into a file."""

    def __init__(
        self,
        argv: Sequence[str],
        output: Path,
        *,
        core: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.output = output
        with output.open("ab") as stream:
            self._popen = subprocess.Popen(
                on_core(core, argv),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=None if env is None else {**os.environ, **env},
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def wait_listening(self, port: int, what: str) -> None:
        """:raises RuntimeError: it ended instead. :raises TimeoutError: it does not."""

        def serves() -> bool:
            if self._popen.poll() is not None:
                end = self.output.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{what} ended with {self._popen.returncode}:\n{end}")
            return listening(port)

        wait_until(serves, f"{what} to listen")

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to it and to what is below it."""
        if self._popen.poll() is not None:
            return
        below = family(self.pid)[1:]
        self._popen.terminate()
        try:
            self._popen.wait(10.0)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            for pid in below:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
