"""One process of the cluster: how it is started, and the running thing.

A child stands in a process group of its own (a Ctrl-C at the terminal reaches the supervisor
alone), is told by the kernel to end when its supervisor dies (``launch``), prints into its own log
file and gets an environment that was chosen, not inherited: no secret of the user's shell or of
another process comes along.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from pbcluster.cli import launch, procfs
from pbcluster.errors import ProcessFailed

#: A log file is copied aside and emptied beyond this size, one copy is kept: at most twice as much
#: a process on the disk.
MAX_LOG_BYTES = 8 * 1024 * 1024
TAIL_LINES = 12
_TAIL_BYTES = 16 * 1024
_POLL_S = 0.02
_PASSED_ON = ("HOME", "LANG", "LC_ALL", "LOGNAME", "TMPDIR", "TZ", "USER")


@attrs.frozen(kw_only=True)
class ProcessSpec:
    """How one process is started.

    :ivar address: where it is reached, as ``status`` shows it.
    :ivar admin: URL of its own admin API (members), else None.
    :ivar files: file → its content, written with mode 0600 before each start.
    :ivar ready_file: what a service writes when it really serves; None: ask ``probe``.
    :ivar probe: whether it serves, for what writes no such file.
    """

    kind: str
    id: str
    argv: tuple[str, ...]
    env: dict[str, str]
    cwd: Path
    log_file: Path
    address: str
    admin: str | None = None
    files: dict[Path, str] = attrs.field(factory=dict, repr=False)
    ready_file: Path | None = None
    probe: Callable[[], bool] | None = attrs.field(default=None, repr=False)
    stop_grace_s: float = 10.0


def clean_environment(**more: str) -> dict[str, str]:
    """The few variables that a child gets, with our interpreter's programs found first."""
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    bin_dir = str(Path(sys.executable).parent)
    env["PATH"] = f"{bin_dir}:{os.environ.get('PATH', '/usr/bin:/bin')}"
    env["PYTHONUNBUFFERED"] = "1"
    return env | more


class Child:
    """A running (or ended) process of ours. Not thread-safe: use it from one thread.

    Start it from a thread that lives as long as the child should: the kernel's parent-death signal
    is tied to the thread.
    """

    def __init__(self, spec: ProcessSpec) -> None:
        self.spec = spec
        self._popen: subprocess.Popen[bytes] | None = None
        self.identity: procfs.Identity | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it lives."""
        return self._popen.pid if self._popen and self._popen.returncode is None else None

    def start(self) -> None:
        """Start it. A leftover ready file is removed first.

        :raises ProcessFailed: the log or a file cannot be written, or no process can be made.
        """
        spec = self.spec
        argv = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *spec.argv]
        try:
            if spec.ready_file is not None:
                spec.ready_file.unlink(missing_ok=True)
            spec.cwd.mkdir(mode=0o700, parents=True, exist_ok=True)
            for file, text in spec.files.items():
                _write_private(file, text)
            spec.log_file.parent.mkdir(parents=True, exist_ok=True)
            with spec.log_file.open("ab") as log:
                self._popen = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=spec.env,
                    cwd=spec.cwd,
                    start_new_session=True,
                )
        except OSError as error:
            raise ProcessFailed(f"cannot start {spec.id}: {error}") from None
        self.identity = procfs.identify(self._popen.pid)

    def ended(self) -> str | None:
        """Why it ended ("exit status 1", "killed by SIGKILL"); None while it lives."""
        if self._popen is None:
            return "was never started"
        status = self._popen.poll()
        if status is None:
            return None
        if status < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-status).name}"
        return f"exit status {status}"

    def serving(self) -> bool:
        """Whether it says that it serves: its ready file bears its process id, or the probe."""
        if self.pid is None:
            return False
        if self.spec.probe is not None:
            return self.spec.probe()
        return self.ready().get("pid") == self.pid

    def ready(self) -> dict[str, Any]:
        """The content of the ready file; empty if there is none."""
        if self.spec.ready_file is None:
            return {}
        try:
            content = json.loads(self.spec.ready_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it alone, if it lives."""
        if self._popen is not None:
            self._popen.send_signal(number)  # polls first: never reaches a stranger

    def kill(self, *, with_children: bool) -> None:
        """SIGKILL to it, and to everything below it if so wished, all before any can react."""
        if self.pid is None:
            return
        if with_children:
            self.send(signal.SIGSTOP)
            below = procfs.descendants(self.pid)
            for who in below:
                procfs.send(who, signal.SIGSTOP)
            # A child that was made between the two looks is seen by the second.
            below += [who for who in procfs.descendants(self.pid) if who not in below]
            for who in below:
                procfs.send(who, signal.SIGKILL)
        self.send(signal.SIGKILL)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end. :returns: whether it ended within ``timeout_s`` seconds."""
        if self._popen is None:
            return True
        until = time.monotonic() + timeout_s
        while self._popen.poll() is None:
            if time.monotonic() >= until:
                return False
            time.sleep(_POLL_S)
        return True

    def stop(self) -> bool:
        """SIGTERM, and SIGKILL with all below it after the spec's grace.

        :returns: whether it ended by itself.
        """
        self.send(signal.SIGTERM)
        if self.wait(self.spec.stop_grace_s):
            return True
        self.kill(with_children=True)
        self.wait(self.spec.stop_grace_s)
        return False

    def tail(self) -> str:
        """The last lines of its log."""
        return tail(self.spec.log_file)


def tail(file: Path, lines: int = TAIL_LINES) -> str:
    """The last ``lines`` lines of a log file; empty if there is none."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def bound_log(file: Path, max_bytes: int = MAX_LOG_BYTES) -> bool:
    """Copy a log that is too large to ``<name>.1`` and empty it.

    Its writer keeps its descriptor (opened for appending) and goes on at the new end. A line that
    is written between copy and emptying is lost; that is the price of asking nothing of the writer.

    :returns: whether it was emptied.
    """
    try:
        if file.stat().st_size <= max_bytes:
            return False
        shutil.copyfile(file, file.with_name(file.name + ".1"))
        os.truncate(file, 0)
    except OSError:
        return False
    return True


def _write_private(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as stream:
        os.fchmod(descriptor, 0o600)
        stream.write(text)
