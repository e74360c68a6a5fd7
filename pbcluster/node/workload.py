"""Starts the tenants' PocketBase processes and knows when they end.

What holds:

* A process answers its health check, and the listening socket is its own, before anybody is told of
  it: another program that took the port would otherwise get a tenant's requests.
* Its port is reserved by a bound, never listening socket of ours as long as it runs.
* It holds the tenant's directory lock itself, so the lock outlives us if it does.
* Its environment is built here; the encryption key is in it, never in an argument.
* It runs in the node's sandbox (``sandbox``), which the kernel confirms before it is told of.

Nothing is restarted here: the tenant's life (``tenant``) decides.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from pbcluster.errors import InvalidInput, ProcessFailed
from pbcluster.node import orphans
from pbcluster.node.interfaces import WorkloadSpec
from pbcluster.node.platform_door import PlatformDoor
from pbcluster.node.platform_files import (
    DATA,
    HOOKS,
    MIGRATIONS,
    PUBLIC,
    TEMPORARY,
    default_app_url,
    remove_migration,
    write_platform_files,
)
from pbcluster.node.sandbox.sandbox import Sandbox, Started, Wanted, default_sandbox

LOOPBACK = "127.0.0.1"
#: A start takes 15 to 150 ms; the longest seen, on a machine just booted, 2.3 s.
START_TIMEOUT_S = 20.0
#: Between two looks at the health check: the first ones quick, since a client waits.
POLL_S, SLOW_POLL_S, QUICK_POLLS = 0.005, 0.05, 200
#: One health check; a database that is recovered may block it.
HEALTH_TIMEOUT_S = 2.0
#: PocketBase gives open requests one second.
STOP_GRACE_S = 5.0
#: Another process may take a port in the moment between our choice and PocketBase's bind.
PORT_ATTEMPTS = 3
#: A tenant that prints more waits for us: reading it costs the node's processor too.
MAX_PRINTED_BYTES_PER_S = 512 * 1024
KEY_NAME = "PB_ENCRYPTION_KEY"
KEY_CHARACTERS = 32
_MAX_ANSWER_BYTES = 4096
_REQUEST = b"GET /api/health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
_SUPERUSERS_REQUEST = (
    b"GET /api/backups HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    b"Authorization: %b\r\n\r\n"
)
_FIELD_VALUE = re.compile(rb"[\x21-\x7e][\x20-\x7e]{0,8000}")
_TCP_LISTEN = "0A"


class PocketBaseProcess:
    """``RunningWorkload`` by a real PocketBase."""

    def __init__(
        self,
        started: Started,
        reservation: socket.socket,
        door: PlatformDoor,
        ask: Callable[[int, bytes], Awaitable[bool]],
    ) -> None:
        """
        :param ask: whether a request to a port is answered 200.
        """
        self._started = started
        self._child = started.child
        self._door = door
        self._ask = ask
        self._pid = 0
        self._port = int(reservation.getsockname()[1])
        self._child.when_ended(lambda _: reservation.close())

    @property
    def host(self) -> str:
        """Loopback address of its listener."""
        return LOOPBACK

    @property
    def port(self) -> int:
        """Port of its listener."""
        return self._port

    @property
    def pid(self) -> int:
        """PocketBase's process id; kept after its end, 0 before it began."""
        self._pid = self._pid or self._started.pid or 0
        return self._pid

    def generation(self) -> str:
        """The inode of its listening socket, empty if it has none now."""
        return listener_of(self._child.pid, self._port)

    async def answers(self) -> bool:
        """Whether its health check answers."""
        return await self._ask(self._port, _REQUEST)

    async def knows(self, authorization: bytes) -> bool:
        """Whether this value of Authorization is a superuser's: they alone see the backups."""
        if not _FIELD_VALUE.fullmatch(authorization):
            return False
        return await self._ask(self._port, _SUPERUSERS_REQUEST % authorization)

    def when_ended(self, callback: Callable[[str], None]) -> None:
        """``callback(reason)`` once it ended; the reason holds its last lines."""
        self._child.when_ended(
            lambda reason: callback(
                f"{self._started.reason or reason}; its last lines: {self._child.last_words()}"
            )
        )

    async def stop(self) -> None:
        """SIGTERM, SIGKILL after a grace period; returns when it is gone."""
        self._started.terminate()
        if await self._child.wait(STOP_GRACE_S) is None:
            await self._child.kill()

    async def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        await self._child.kill()

    async def ask(self, what: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """See ``RunningWorkload``."""
        return await self._door.ask(self.host, self.port, what, question)


class PocketBaseWorkloads:
    """``Workloads`` by the real thing."""

    def __init__(
        self,
        reactor: Any,
        *,
        binary: Path,
        data_dir: Path,
        lock_fd: Callable[[str], int | None],
        app_url: Callable[[str], str] = default_app_url,
        on_line: Callable[[str, str], None] = lambda tenant_id, line: None,
        sandbox: Sandbox | None = None,
        connect_ports: Callable[[str], tuple[int, ...]] = lambda tenant_id: (),
        more_env: Callable[[str], Mapping[str, str]] = lambda tenant_id: {},
    ) -> None:
        """
        :param reactor: processes, TCP and time.
        :param binary: the verified ``pocketbase``.
        :param data_dir: the node's.
        :param sandbox: prepared before the first start; None: a new one, with its defaults,
            prepared at the first start.
        :param connect_ports: tenant id → TCP ports that it may connect to, beside its spec's.
        :param more_env: tenant id → further environment.
        :param lock_fd: tenant id → descriptor of its directory's lock
            (``NodeDirectories.lock_fd``).
        :param app_url: a tenant's host → its public URL.
        :param on_line: told a tenant's id and each line that its process prints, without tokens.
        """
        self._reactor = reactor
        self._sandbox = sandbox or default_sandbox(data_dir, binary)
        self._connect_ports = connect_ports
        self._more_env = more_env
        self._marker = orphans.marker(data_dir)
        self._lock_fd = lock_fd
        self._app_url = app_url
        self._on_line = on_line

    async def start(self, spec: WorkloadSpec) -> PocketBaseProcess:
        """Start and wait for the health check.

        :raises ProcessFailed: it ended or did not answer in time; says why.
        :raises InvalidInput: the encryption key has not 32 characters.
        """
        if len(spec.encryption_key) != KEY_CHARACTERS:
            raise InvalidInput(
                "the encryption key has a wrong length",
                field="encryption_key",
                allowed=f"{KEY_CHARACTERS} characters",
            )
        door = PlatformDoor(self._reactor)
        write_platform_files(spec, self._app_url, secret_hash=door.secret_hash)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            started = await self._start_once(spec, door, last=attempt == PORT_ATTEMPTS)
            if started is not None:
                remove_migration(spec)
                return started
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _start_once(
        self, spec: WorkloadSpec, door: PlatformDoor, *, last: bool
    ) -> PocketBaseProcess | None:
        reservation = _reserve_port()
        port = int(reservation.getsockname()[1])
        lock = self._lock_fd(spec.tenant_id)
        try:
            started = self._sandbox.start(
                self._reactor,
                Wanted(
                    tenant_id=spec.tenant_id,
                    directory=spec.directory,
                    port=port,
                    argv=self._argv(spec, port),
                    env=self._env(spec),
                    connect=spec.connect_ports + self._connect_ports(spec.tenant_id),
                    quotas=spec.quotas,
                    lock=lock,
                ),
                on_line=lambda line: self._on_line(spec.tenant_id, line),
                max_bytes_per_s=MAX_PRINTED_BYTES_PER_S,
            )
        except BaseException:
            reservation.close()
            raise
        workload = PocketBaseProcess(started, reservation, door, self._ask)
        child = started.child
        try:
            await self._healthy(started, port)
            if not owns_listener(workload.pid, port):
                raise ProcessFailed(f"port {port} answers, but not by {child.name}")
            started.check()
        except ProcessFailed:
            await child.kill()
            taken = "address already in use" in child.last_words()
            if last or not taken:
                raise
            return None
        except BaseException:
            await child.kill()
            raise
        return workload

    def _argv(self, spec: WorkloadSpec, port: int) -> list[str]:
        where = spec.directory
        return [
            str(self._sandbox.binary),
            "serve",
            f"--dir={where / DATA}",
            f"--hooksDir={where / HOOKS}",
            f"--migrationsDir={where / MIGRATIONS}",
            f"--publicDir={where / PUBLIC}",
            f"--http={LOOPBACK}:{port}",
            f"--encryptionEnv={KEY_NAME}",
            "--hooksPool=1",
            "--automigrate=false",
            "--hooksWatch=false",
        ]

    def _env(self, spec: WorkloadSpec) -> dict[str, str]:
        return {
            "PATH": "/usr/bin:/bin",
            "HOME": str(spec.directory),
            "TMPDIR": str(spec.directory / TEMPORARY),
            "TZ": "UTC",
            # Half the memory of 200 processes for little CPU.
            "GOGC": "50",
            # Go listens with MPTCP by default, which no sandbox of the kernel's knows yet.
            "GODEBUG": "multipathtcp=0",
            KEY_NAME: spec.encryption_key,
            **self._more_env(spec.tenant_id),
            **self._marker,
        }

    async def _healthy(self, started: Started, port: int) -> None:
        child = started.child
        until = self._reactor.seconds() + START_TIMEOUT_S
        polls = 0
        while self._reactor.seconds() < until:
            polls += 1
            pause = POLL_S if polls <= QUICK_POLLS else SLOW_POLL_S
            if await child.wait(pause) is not None:
                raise ProcessFailed(
                    f"{child.name} did not start ({started.reason}): {child.last_words()}"
                )
            if await self._ask(port, _REQUEST):
                return
        raise ProcessFailed(
            f"{child.name} did not answer within {START_TIMEOUT_S:g} s: {child.last_words()}"
        )

    async def _ask(self, port: int, request: bytes) -> bool:
        endpoint = TCP4ClientEndpoint(self._reactor, LOOPBACK, port, timeout=HEALTH_TIMEOUT_S)
        answer: Deferred[bytes] = Deferred()
        timer = None
        try:
            protocol = await endpoint.connect(Factory.forProtocol(_Health))
            assert isinstance(protocol, _Health)
            protocol.answer = answer
            protocol.ask(request)
            timer = self._reactor.callLater(HEALTH_TIMEOUT_S, protocol.give_up)
            return (await answer).startswith(b"HTTP/1.1 200")
        except ConnectError:
            return False
        finally:
            if timer is not None and timer.active():
                timer.cancel()


class _Health(Protocol):
    """One request; ``answer`` fires with what came before the connection ended."""

    def __init__(self) -> None:
        self.answer: Deferred[bytes] | None = None
        self._received = b""

    def ask(self, request: bytes) -> None:
        assert self.transport is not None
        self.transport.write(request)

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        if b"\r\n" in self._received or len(self._received) > _MAX_ANSWER_BYTES:
            self.give_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.callback(self._received)

    def give_up(self) -> None:
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]


def _reserve_port() -> socket.socket:
    """A bound socket that never listens: with SO_REUSEADDR, as Go's listener has it, PocketBase can
    bind the same port, and the system gives it to nobody else."""
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind((LOOPBACK, 0))
    return reservation


def owns_listener(pid: int, port: int) -> bool:
    """Whether the process ``pid`` holds the socket that listens on 127.0.0.1:``port``."""
    return listener_of(pid, port) != ""


def listener_of(pid: int, port: int) -> str:
    """The socket that listens on 127.0.0.1:``port`` if the process ``pid`` holds it, else empty."""
    wanted = f"0100007F:{port:04X}"
    inodes = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1] == wanted and fields[3] == _TCP_LISTEN:
            inodes.add(f"socket:[{fields[9]}]")
    if not inodes:
        return ""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if (held := str(entry.readlink())) in inodes:
                    return held
    return ""
