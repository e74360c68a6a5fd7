"""Child processes of a service: started through the reactor, tied to its life, never talkative.

What holds:

* A child gets exactly the environment it is given: nothing of ours is inherited.
* It dies with us, kill -9 included: the kernel sends it SIGKILL when our main thread ends. It leads
  a session and process group of its own; what it leaves in the group is killed after its end.
* What it prints is cut into bounded lines; a few last ones are kept for error messages. Tokens are
  blotted out before anything sees a line.

Between our fork and the kernel's knowing the wish lies about a millisecond; a child orphaned just
there is ended by ``node.orphans`` at the next start. No shell is ever involved.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.process import Process
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from pbcluster.errors import ProcessFailed

#: Longer lines are cut: a stack trace of a hook must not fill our memory.
MAX_LINE_BYTES = 4096
#: A short line costs us as much as so many bytes of a long one.
LINE_COST_BYTES = 256
#: Of a child that is paced: in one read (64 KiB) are 65,536 empty lines, 0.3 s of work.
MAX_LINES_AT_ONCE = 1_000
#: Lines kept for error messages.
TAIL_LINES = 12
#: After the exit, its last words get so long to arrive: something it started may hold the pipe.
LAST_WORDS_S = 0.2
#: SIGKILL cannot be refused; only a process stuck in the kernel takes longer.
KILLED_WITHIN_S = 10.0
#: Exit status of a child that could not become its program.
EXIT_NOT_STARTED = 126
#: A JSON Web Token or the beginning of one, as in PocketBase's installer URL (a way in without a
#: password); that URL's token whatever it looks like; the value of an Authorization header. A
#: tenant chooses what is searched: nothing may be tried in more than one way.
_SECRET = re.compile(
    r"eyJ[\w-]{8,}(?:\.[\w-]*){0,2}"
    r"|(?<=pbinstal/)\S+"
    r"|(?<=pbinstall/)\S+"
    r"|(?i:(\b(?:X-PocketBase-|Proxy-)?Authorization[\"']?\s*+[:=]\s*+\[?+\s*+[\"']?+))"
    r"(?:\w++\s++)?[^\s\"',;\]}]+"
)
#: Frames of a Go stack trace, which would push the panic's own words out of the tail.
_GO_FRAME = re.compile(r"\t|goroutine \d+ \[|created by |\S+\(.*\)$|\s*$")
_UTIL_LINUX = ("setsid", "setpriv")
#: Run by path, never imported.
_LAUNCHER = Path(__file__).resolve().parent / "node" / "launcher.py"
_SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


def redacted(line: str) -> str:
    """The line without tokens and the values of Authorization headers."""
    return _SECRET.sub(lambda found: (found[1] or "") + "[token]", line)


def launched(argv: Sequence[str], *, util_linux: bool = True) -> list[str]:
    """``argv`` behind what ties the child to our life.

    :param util_linux: use setsid and setpriv if both are there; else Python does it.
    """
    tools = [shutil.which(tool, path=_SYSTEM_PATH) for tool in _UTIL_LINUX] if util_linux else []
    setsid, setpriv = tools or (None, None)
    if setsid and setpriv:
        return [setsid, setpriv, "--pdeathsig", "KILL", *argv]
    return [sys.executable, "-I", "-S", "-E", str(_LAUNCHER), str(os.getpid()), *argv]


class _Lines:
    """Cuts a stream into bounded lines; what a line has beyond the bound is dropped, so that no
    line begins in the middle of a token. :ivar rest: the line that is not ended yet."""

    def __init__(self) -> None:
        self.rest = b""

    def cut(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` ends."""
        *lines, rest = (self.rest + data).split(b"\n")
        # One byte more, by which the cut is seen.
        self.rest = rest[: MAX_LINE_BYTES + 1]
        return lines


class Child(ProcessProtocol):
    """A running (or ended) child. Made by :func:`start_child`.

    :ivar name: what it is called in errors. :ivar pid: its process id, kept after its end.
    :ivar tail: its last lines, without tokens and Go's stack traces.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        on_line: Callable[[str], None] | None,
        max_bytes_per_s: int = 0,
    ) -> None:
        self.name = name
        self.pid = 0
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._reactor = reactor
        self._on_line = on_line
        self._lines = {1: _Lines(), 2: _Lines()}
        self._max_bytes_per_s = max_bytes_per_s
        self._pacing: Any = None
        self._printed = 0
        self._callbacks: list[Callable[[str], None]] = []
        self._reason: str | None = None
        self._exited = False
        self._in_trace = False
        self._words: Any = None

    # -- from the reactor --

    def connectionMade(self) -> None:
        """It was started."""
        assert self.transport is not None
        self.pid = int(self.transport.pid)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """It printed something."""
        lines = self._lines[childFD].cut(data)
        if self._max_bytes_per_s and len(lines) > MAX_LINES_AT_ONCE:
            dropped = len(lines) - MAX_LINES_AT_ONCE
            told = f"[pbcluster: {dropped} lines were dropped here: too fast]".encode()
            lines = [told, *lines[dropped:]]
        for line in lines:
            self._line(line)
        self._printed += len(data) + LINE_COST_BYTES * len(lines)
        if self._max_bytes_per_s and self._pacing is None:
            self._pacing = self._reactor.callLater(1.0, self._next_second)
        if self._max_bytes_per_s and self._printed >= self._max_bytes_per_s:
            self._pause_or_resume("pauseProducing")

    def _next_second(self) -> None:
        self._pacing = None
        over = self._max_bytes_per_s and self._printed >= self._max_bytes_per_s
        self._printed = 0
        if over:
            self._pause_or_resume("resumeProducing")

    def _pause_or_resume(self, how: str) -> None:
        # Twisted's processes can; its interface does not say so.
        getattr(self.transport, how)()

    def processExited(self, reason: Failure) -> None:
        """It was reaped."""
        self._exited = True
        if self._pacing is not None:  # its last words are waited for no longer than others'
            self._pacing.cancel()
            self._next_second()
        self._max_bytes_per_s = 0
        how = how_ended(reason)
        # Members of its group keep the group's number from being given away.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._words = self._reactor.callLater(LAST_WORDS_S, self._ended, how)

    def processEnded(self, reason: Failure) -> None:
        """And its pipes are closed."""
        self._ended(how_ended(reason))

    def _line(self, line: bytes) -> None:
        text = redacted(line[:MAX_LINE_BYTES].decode("utf-8", "replace").rstrip())
        self._in_trace = bool(_GO_FRAME.match(text)) and (
            self._in_trace or text.startswith("goroutine ")
        )
        if text:
            if not self._in_trace:
                self.tail.append(text)
            if self._on_line is not None:
                self._on_line(text)

    def _ended(self, how: str) -> None:
        if self._words is not None and self._words.active():
            self._words.cancel()
        if self._reason is not None:
            return
        for lines in self._lines.values():
            self._line(lines.rest)
        self._reason = how
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(how)

    # -- for us --

    @property
    def alive(self) -> bool:
        """Whether it was not reaped yet."""
        return not self._exited

    @property
    def reason(self) -> str | None:
        """Why it ended ("exit status 1", "killed by SIGKILL"); None while it runs."""
        return self._reason

    def last_words(self) -> str:
        """Its last lines, for an error message."""
        return "; ".join(self.tail) or "it printed nothing"

    def when_ended(self, callback: Callable[[str], None]) -> None:
        """``callback(reason)`` once it ended; at once if it has."""
        if self._reason is not None:
            callback(self._reason)
        else:
            self._callbacks.append(callback)

    async def wait(self, timeout_s: float) -> str | None:
        """Wait for its end. :returns: the reason, None if it still runs after ``timeout_s``."""
        if self._reason is not None:
            return self._reason
        waiting: Deferred[str | None] = Deferred()
        timer = self._reactor.callLater(timeout_s, waiting.callback, None)

        def ended(reason: str) -> None:
            if timer.active():
                timer.cancel()
                waiting.callback(reason)

        self._callbacks.append(ended)
        try:
            return await waiting
        finally:
            if ended in self._callbacks:
                self._callbacks.remove(ended)

    def signal(self, number: signal.Signals, *, group: bool = False) -> None:
        """Send a signal to it, or to its whole group; nothing if it ended."""
        if not self.alive or self.transport is None:
            return
        if group:
            # Just started, it leads no group yet: then the signal below reaches it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(number)

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after ``grace_s``; returns when it is gone."""
        self.signal(signal.SIGTERM)
        if await self.wait(grace_s) is None:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL to all of its group; returns when it is gone.

        :raises ProcessFailed: the kernel does not let it go.
        """
        self.signal(signal.SIGKILL, group=True)
        if await self.wait(KILLED_WITHIN_S) is None:
            raise ProcessFailed(f"{self.name} (process {self.pid}) cannot be killed")


class _PreparedProcess(Process):
    """A child that does something to itself between fork and exec.

    Twisted's hooks for that are not public: :func:`start_child` refuses to go on without them.
    """

    def __init__(self, prepare: Callable[[], None], *arguments: Any, **named: Any) -> None:
        self._prepare = prepare
        super().__init__(*arguments, **named)

    def _trySpawnInsteadOfFork(self, *arguments: Any, **named: Any) -> bool:
        return False

    def _execChild(
        self, path: str, uid: None, gid: None, executable: str, args: Any, environment: Any
    ) -> None:
        """In the child: prepare and become the program, or end."""
        try:
            if path:
                os.chdir(path)
            self._prepare()
            os.execve(executable, args, environment)
        except BaseException as error:
            os.write(2, f"cannot start {executable}: {error}\n".encode())
        os._exit(EXIT_NOT_STARTED)


def clipped(bounds: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Resource limits, none above what this process may give."""
    clipped_bounds = []
    for kind, bound in bounds:
        hard = resource.getrlimit(kind)[1]
        most = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        clipped_bounds.append((kind, most))
    return tuple(clipped_bounds)


def start_child(
    reactor: Any,
    name: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    directory: Path | None = None,
    inherited: Sequence[int] = (),
    on_line: Callable[[str], None] | None = None,
    max_bytes_per_s: int = 0,
    prepare: Callable[[], None] | None = None,
) -> Child:
    """Start a program.

    :param reactor: ``IReactorProcess`` and ``IReactorTime``; call it from the main thread.
    :param argv: the program's absolute path, then its arguments; no secrets.
    :param env: its whole environment.
    :param inherited: descriptors that it gets too, as 3, 4, …
    :param on_line: told every line it prints.
    :param max_bytes_per_s: of what it prints; with more it waits for us. 0: any.
    :param prepare: called in the child in the place of what ties it to our life: it must do that,
        too. If it raises, the child ends.
    :raises ProcessFailed: no process can be made.
    """
    child = Child(reactor, name, on_line, max_bytes_per_s)
    command = launched(argv) if prepare is None else list(argv)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    fds: dict[int, Any] = {0: null, 1: "r", 2: "r"}
    fds |= {3 + place: fd for place, fd in enumerate(inherited)}
    try:
        where = str(directory) if directory is not None else None
        if prepare is None:
            reactor.spawnProcess(child, command[0], command, dict(env), where, childFDs=fds)
        else:
            _check_hooks()
            _PreparedProcess(
                prepare, reactor, command[0], command, dict(env), where, child, childFDs=fds
            )
    except OSError as error:
        raise ProcessFailed(f"cannot start {name}: {error.strerror}") from None
    finally:
        os.close(null)
    return child


def _check_hooks() -> None:
    for hook in ("_execChild", "_trySpawnInsteadOfFork"):
        if not hasattr(Process, hook):
            raise ProcessFailed(
                f"this Twisted has no Process.{hook}: use the version that is pinned"
            )


async def run_child(
    reactor: Any, name: str, argv: Sequence[str], env: Mapping[str, str], *, timeout_s: float
) -> Child:
    """Run a program to its end.

    :returns: the ended child; look at ``reason``.
    :raises ProcessFailed: it was killed because it took longer than ``timeout_s``.
    """
    child = start_child(reactor, name, argv, env)
    try:
        ended = await child.wait(timeout_s)
    except BaseException:  # cancelled: nobody waits for it any more
        child.signal(signal.SIGKILL, group=True)
        raise
    if ended is None:
        await child.kill()
        raise ProcessFailed(f"{name} took longer than {timeout_s:g} s: {child.last_words()}")
    return child


def how_ended(reason: Failure) -> str:
    """Why a process ended, in words: "exit status 1", "killed by SIGKILL"."""
    if reason.check(ProcessDone):
        return "exit status 0"
    number = getattr(reason.value, "signal", None)
    if number:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(number).name}"
    return f"exit status {getattr(reason.value, 'exitCode', None)}"
