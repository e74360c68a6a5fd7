"""The sandbox where the kernel's Landlock is too old: bubblewrap's namespaces, with our filter.

The process sees the same files as under Landlock (``rules``), at the same paths, and no others; it
is alone in its PID and IPC namespace. What it lacks: TCP ports are not limited, so that every
listener on this machine's loopback can be reached, but for those that ask for a key.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from pbcluster.node.sandbox.rules import WRITE_FILE, PathRule

NAME = "bwrap"
_SYSTEM_PATH = "/usr/bin:/bin:/usr/local/bin"
TRY_TIMEOUT_S = 10.0


def find() -> str | None:
    """Its path, None: it is not installed."""
    return shutil.which(NAME, path=_SYSTEM_PATH)


def cannot(program: str, user: tuple[int, int] | None) -> str:
    """Why it does not work here; empty if it does. Blocks for a start of a program.

    :param user: uid and gid as whom it would run.
    """
    true = next(path for path in ("/bin/true", "/usr/bin/true") if os.path.exists(path))
    argv = [program, *_namespaces(), "--ro-bind", "/", "/", "--proc", "/proc", true]
    extra = {} if user is None else {"user": user[0], "group": user[1], "extra_groups": []}
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=TRY_TIMEOUT_S,
            check=False,
            env={},
            cwd="/",
            **extra,  # type: ignore[call-overload]
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stderr.strip() if done.returncode else ""


def _namespaces() -> list[str]:
    return ["--unshare-user-try", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]


def command(
    program: str, paths: Iterable[PathRule], directory: Path, filter_fd: int, argv: Sequence[str]
) -> list[str]:
    """``argv`` in the sandbox.

    :param filter_fd: descriptor from which the filter is read. :param directory: where it starts.
    """
    words = [program, *_namespaces(), "--die-with-parent", "--as-pid-1", "--cap-drop", "ALL"]
    words += ["--proc", "/proc", "--dev", "/dev"]
    for rule in paths:
        if not rule.path.is_relative_to("/dev"):
            how = "--bind" if rule.access & WRITE_FILE else "--ro-bind"
            words += [how if rule.must_exist else f"{how}-try", str(rule.path), str(rule.path)]
    # Last: what else is there lives in memory, which is not to be filled.
    words += ["--remount-ro", "/"]
    return [*words, "--chdir", str(directory), "--seccomp", str(filter_fd), "--", *argv]


def filter_pipe(program: bytes) -> int:
    """A descriptor that the filter can be read from once."""
    reader, writer = os.pipe()
    try:
        os.write(writer, program)  # far less than a pipe holds
    finally:
        os.close(writer)
    return reader


def inner(pid: int) -> int | None:
    """The process inside, by the id of the bubblewrap that started it; None: none yet."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return None


def signal_inner(pid: int, number: signal.Signals) -> None:
    """Send a signal to the process inside; nothing if it is gone."""
    found = inner(pid)
    if found is None:
        return
    with suppress(OSError):
        handle = os.pidfd_open(found)
        try:
            if inner(pid) == found:  # still bubblewrap's child, so still the one looked at
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
