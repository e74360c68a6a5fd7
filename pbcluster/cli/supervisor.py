"""Runs all processes of one cluster: starts them in order, restarts what dies, stops all in order.

Invariants: one supervisor a directory (flock on ``run/supervisor.lock``, which ends with it,
however it ends); nothing is started while a process of an earlier run lives; whatever happens,
every process it started has ended when :meth:`Supervisor.run` returns. A supervisor that is killed
takes its processes along (``launch``).

It is one loop in one thread: a signal or the end of a child wakes it at once, otherwise it looks
around every quarter of a second. It knows nothing of tenants and asks the services nothing but
whether they serve.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import FrameType

import attrs

from pbcluster.cli import procfs, replacing, state
from pbcluster.cli.child import Child, ProcessSpec, bound_log
from pbcluster.cli.layout import ClusterDir
from pbcluster.cli.managed import Managed
from pbcluster.cli.state import ClusterState
from pbcluster.errors import ConfigError, PBClusterError, ProcessFailed

#: What is started together, group after group; a group waits until the one before it serves.
#: A gateway waits for the control plane by itself; nodes want the bucket, which S3's probe makes.
START_GROUPS = (("s3", "member", "gateway"), ("node",))
#: Requests stop first, then what they need.
STOP_ORDER = ("gateway", "node", "member", "s3")
#: Deaths of one process before it ever served, after which ``up`` gives up.
MAX_EARLY_DEATHS = 3
#: From the first start until everything serves. A loaded machine needs a few seconds.
SERVE_WITHIN_S = 90.0
#: For processes of an earlier run, whose supervisor was killed: they end by themselves.
LEFTOVER_GRACE_S = 15.0
_LOOK_S = 0.25
_LOGS_EVERY_S = 5.0


class Supervisor:
    """Supervises the processes of one directory."""

    def __init__(
        self,
        where: ClusterDir,
        specs: list[ProcessSpec],
        *,
        restart: bool = True,
        on_change: Callable[[ClusterState], None] = lambda _: None,
        check_before_start: Callable[[], None] = lambda: None,
        also_serves: Callable[[], bool] = lambda: True,
        read_again: Callable[[], list[ProcessSpec]] | None = None,
    ) -> None:
        """
        :param restart: start again what died.
        :param on_change: called in the loop with each new state; must not block.
        :param check_before_start: called when nothing of an earlier run lives any more; may raise.
        :param read_again: gives the specs as they are now, at SIGUSR1: who is new is started, who
            is gone is stopped, who is to be replaced (``replacing``) is, everybody else goes on.
        :param also_serves: asked, when every process says so, whether the cluster really serves.
        """
        self._where = where
        self._managed = [Managed(Child(spec)) for spec in specs]
        self._restart = restart
        self._on_change = on_change
        self._check_before_start = check_before_start
        self._also_serves = also_serves
        self._phase = state.STARTING
        self._message = ""
        self._shown: ClusterState | None = None
        self._stop_signals = 0
        self._read_again = read_again
        self._told_to_read = False
        self._logs_at = 0.0
        self._wake: socket.socket | None = None

    def run(self) -> None:
        """Supervise until SIGINT, SIGTERM or SIGHUP, then stop everything. Main thread only.

        :raises ConfigError: another supervisor runs here, or ``check_before_start`` says no.
        :raises ProcessFailed: the cluster did not come to serve; says why, with the log's end.
        """
        with _locked(self._where), self._signals():
            left = self._take_over()
            try:
                procfs.end_all(left, LEFTOVER_GRACE_S)
                self._check_before_start()
                self._start_all()
                self._watch()
            except PBClusterError as error:
                self._message = str(error)
                self._stop_all(state.FAILED)
                raise
            finally:
                # Also for an error of our own: nothing may be left behind.
                self._stop_all(state.STOPPED)
                self._where.supervisor_file.unlink(missing_ok=True)

    # -- starting ---------------------------------------------------------------------------------

    def _start_all(self) -> None:
        until = time.monotonic() + SERVE_WITHIN_S
        for kinds in START_GROUPS:
            if self._stop_signals:
                return
            group = [one for one in self._managed if one.spec.kind in kinds]
            for one in group:
                self._start(one)
            while not self._stop_signals and not all(
                self._serves(one) or one.state == state.DEAD for one in group
            ):
                self._look(until)
        while not self._stop_signals and not self._also_serves():
            self._look(until)
        if not self._stop_signals:
            self._phase = state.SERVING
            self._publish()

    def _look(self, until: float) -> None:
        """One round while the cluster starts.

        :raises ProcessFailed: it is too late, or a process dies again and again.
        """
        self._publish()
        self._pause()
        self._attend()
        for one in self._managed:
            if one.early_deaths >= MAX_EARLY_DEATHS or one.state == state.DEAD:
                one.state = state.DEAD
                if not self._can_be_spared(one):
                    raise self._failure(one, f"{one.spec.id} does not start ({one.reason})")
                self._message = f"{one.spec.id} does not start ({one.reason}); the others go on"
        if time.monotonic() > until:
            late = [o for o in self._managed if o.state not in (state.SERVING, state.DEAD)]
            names = ", ".join(one.spec.id for one in late) or "the gateway"
            why = f"{names} did not come to serve within {SERVE_WITHIN_S:.0f} s"
            raise self._failure(late[0] if late else self._managed[-1], why)

    def _can_be_spared(self, one: Managed) -> bool:
        """Whether the cluster works without it: a member of whose group most are left."""
        group = [other for other in self._managed if other.spec.kind == one.spec.kind]
        dead = sum(other.state == state.DEAD for other in group)
        return one.spec.kind == "member" and 2 * dead < len(group)

    def _failure(self, one: Managed, why: str) -> ProcessFailed:
        log = one.spec.log_file
        return ProcessFailed(f"{why}; its log is {log}, which ends:\n{one.child.tail()}")

    def _start(self, one: Managed) -> None:
        one.state = state.STARTING
        one.served_at = None
        try:
            one.child.start()
        except ProcessFailed as error:
            one.died(str(error), time.monotonic(), restart=self._restart)

    def _serves(self, one: Managed) -> bool:
        if one.state == state.STARTING and one.child.serving():
            one.state = state.SERVING
            one.served_at = time.monotonic()
        return one.state == state.SERVING

    # -- running ----------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._stop_signals:
            self._publish()
            self._pause()
            if self._told_to_read:
                self._told_to_read = False
                self._reread()
            self._attend()

    def _reread(self) -> None:
        """Start who is new in the plan, stop who is gone from it."""
        if self._read_again is None:
            return
        try:
            specs = self._read_again()
        except (PBClusterError, OSError) as error:
            self._message = str(error)
            return
        known = {one.spec.id: one for one in self._managed if one.state != state.LEAVING}
        for spec in specs:
            if spec.id not in known:
                self._managed.append(Managed(Child(spec)))
                self._start(self._managed[-1])
        for name in known.keys() - {spec.id for spec in specs}:
            one = known[name]
            one.state, one.due_at = state.LEAVING, time.monotonic() + one.spec.stop_grace_s
            one.child.send(signal.SIGTERM)
        for spec in specs:
            if spec.id in known:
                # Should it die, it starts again by what is written now.
                known[spec.id].child.spec = spec
                if replacing.asked_for(self._where, spec.id):
                    self._replace(known[spec.id], spec)

    def _replace(self, one: Managed, spec: ProcessSpec) -> None:
        """Another process in its place: beside it where it can hand over, else after its end."""
        now = time.monotonic()
        if one.state in (state.RESTARTING, state.DEAD):
            one.child, one.state, one.due_at = Child(spec), state.RESTARTING, now
        elif one.state == state.SERVING and one.successor is None:
            self._message = ""
            one.successor = replacing.successor_of(spec)
            if replacing.hands_over(spec):
                one.successor.start()
            else:
                one.state, one.due_at = state.STOPPING, now + one.spec.stop_grace_s
                one.child.send(signal.SIGTERM)

    def _renew(self, one: Managed, successor: Child, now: float) -> None:
        """See to one that is being replaced and ends first; it is killed when its time is over."""
        if one.child.ended() is None:
            if now >= one.due_at:
                one.child.kill(with_children=True)
            return
        one.child, one.successor = successor, None
        one.restarts += 1
        self._start(one)

    def _succeed(self, one: Managed, successor: Child, now: float) -> None:
        """See to one that is being replaced: the former process drains once the new one serves."""
        reason = successor.ended()
        if reason is not None:
            one.successor = None
            self._message = replacing.failed(one.spec.id, reason)
        elif successor.serving() or one.child.ended() is not None:
            due_at = now + one.spec.stop_grace_s
            self._managed.append(Managed(one.child, state=state.LEAVING, due_at=due_at))
            one.child, one.successor = successor, None
            one.state, one.served_at = state.STARTING, None
            one.restarts += 1
            self._serves(one)

    def _left(self, one: Managed, now: float) -> bool:
        """Whether one that was told to go is gone; it is killed when its time is over."""
        if one.state != state.LEAVING:
            return False
        if one.child.pid and one.child.ended() is None:
            if now >= one.due_at:
                one.child.kill(with_children=True)
            return False
        return True

    def _attend(self) -> None:
        """Note who died, start who is due, see who serves now, bound the logs."""
        now = time.monotonic()
        self._managed = [one for one in self._managed if not self._left(one, now)]
        for one in list(self._managed):
            if one.successor is not None and one.state == state.STOPPING:
                self._renew(one, one.successor, now)
            elif one.successor is not None:
                self._succeed(one, one.successor, now)
            if one.state in (state.STARTING, state.SERVING):
                reason = one.child.ended()
                if reason is not None:
                    one.died(reason, time.monotonic(), restart=self._restart)
                else:
                    self._serves(one)
            if one.state == state.RESTARTING and now >= one.due_at:
                one.restarts += 1
                self._start(one)
        if now >= self._logs_at:
            self._logs_at = now + _LOGS_EVERY_S
            for one in self._managed:
                bound_log(one.spec.log_file)
            bound_log(self._where.supervisor_log)

    # -- stopping ---------------------------------------------------------------------------------

    def _stop_all(self, phase: str) -> None:
        """End everything, kind after kind. Calling it again does nothing."""
        if self._phase in (state.STOPPED, state.FAILED):
            return
        self._phase = state.STOPPING
        rising = [one.successor for one in self._managed if one.successor is not None]
        self._managed += [Managed(child) for child in rising]
        # A signal from here on means: faster.
        patience = self._stop_signals
        for kind in STOP_ORDER:
            group = [one for one in self._managed if one.spec.kind == kind]
            for one in group:
                one.state = state.STOPPING if one.child.pid else state.STOPPED
                one.child.send(signal.SIGTERM)
            self._publish()
            until = time.monotonic() + max((one.spec.stop_grace_s for one in group), default=0.0)
            while any(one.child.ended() is None for one in group):
                if time.monotonic() > until or self._stop_signals > max(patience, 1):
                    self._kill(group)
                    break
                self._pause()
            for one in group:
                one.reason = one.child.ended() or "still ending"
                one.state = state.STOPPED
            self._publish()
        self._phase = phase
        self._publish()

    def _kill(self, group: list[Managed]) -> None:
        for one in group:
            one.child.kill(with_children=True)
        for one in group:
            one.child.wait(one.spec.stop_grace_s)

    def _take_over(self) -> list[procfs.Identity]:
        """Note that we supervise. :returns: what a supervisor that was killed left behind."""
        left = state.living(self._where)
        old = state.read_state(self._where)
        text = f"ending {len(left)} processes of an earlier run" if left else ""
        # It must neither say "serving" any more nor forget those processes while they live.
        now = ClusterState(
            phase=state.STARTING, processes=old.processes if old else (), message=text
        )
        state.write_state(self._where, now)
        me = procfs.identify(os.getpid())
        if me is not None:
            state.write_supervisor(self._where, me)
        self._on_change(attrs.evolve(now, processes=()))
        return left

    # -- the loop's tools -------------------------------------------------------------------------

    def _publish(self) -> None:
        shown = ClusterState(
            phase=self._phase,
            processes=tuple(one.shown() for one in self._managed),
            message=self._message,
        )
        if shown != self._shown:
            self._shown = shown
            with contextlib.suppress(OSError):  # a full disk must not end the cluster
                state.write_state(self._where, shown)
            self._on_change(shown)

    def _pause(self) -> None:
        if self._wake is None:
            return
        if select.select([self._wake], [], [], _LOOK_S)[0]:
            with contextlib.suppress(BlockingIOError):
                self._wake.recv(4096)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Signals end a pause at once; those that ask us to stop are counted."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self._stop_signals += 1

        def read(_number: int, _frame: FrameType | None) -> None:
            self._told_to_read = True

        self._wake, told = socket.socketpair()
        for end in (self._wake, told):
            end.setblocking(False)
        asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, stop) for number in asking}
        before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, read)
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        old_fd = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._wake.close()
            told.close()


@contextlib.contextmanager
def _locked(where: ClusterDir) -> Iterator[None]:
    where.run.mkdir(parents=True, exist_ok=True)
    with where.lock_file.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"the cluster in {where.root} is already running: see `pbcluster status --dir "
                f"{where.root}`, stop it with `pbcluster down --dir {where.root}`"
            ) from None
        yield
