"""A gateway with workers: the process that holds the sockets, starts the workers and passes on.

It serves no request itself. It binds (or takes over) the listening sockets, one for each worker,
and keeps them open, so that none of their queues is lost while a worker is away; starts the
workers, and again those that die (``crew``); passes SIGTERM and SIGHUP on; answers the metrics
listener for all. A worker that is alive longer than its master cannot be: the kernel kills it.

A worker reads a copy of the configuration as it was when the master last accepted it
(``workers.toml`` in the data directory), so that one that is started again while somebody edits the
file does not trip over it.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Gauge
from treq.client import HTTPClient
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.web.client import Agent, HTTPConnectionPool, _HTTP11ClientFactory

from pbcluster import compiled, processes
from pbcluster.config import GatewayConfig, settings_of
from pbcluster.errors import PBClusterError
from pbcluster.gateway import master_pages, warm_start, worker
from pbcluster.gateway.crew import Adopt, Crew, Effect, Release, Start, State
from pbcluster.gateway.doors import METRICS, Doors
from pbcluster.gateway.entrance import Entrance
from pbcluster.gateway.reloading import Reloading
from pbcluster.gateway.remembered import DIRECTORY
from pbcluster.gateway.watchdog import Watchdog
from pbcluster.gateway.worker import Place
from pbcluster.gateway.worker_process import WorkerProcess, environment
from pbcluster.options import Parsed
from pbcluster.web.listening import Listener
from pbcluster.web.streams import streams_of

#: A worker serves about a second after its start, 5 s later while the control plane is away.
READY_WAIT_S = 20.0
#: After its own two drains a worker has so long to end.
END_GRACE_S = 5.0
COPY = "workers.toml"
#: Settings that a worker applies while it runs; the master has no part in them.
LIVE = frozenset(
    (
        "base_domains",
        "hold_s",
        "route_ttl_s",
        "max_body_bytes",
        "trusted_networks",
        "header_timeout_s",
        "body_idle_s",
        "drain_ready_s",
        "drain_s",
        "members",
        "broadcasts",
    )
)

log = Logger()


class _Quiet(_HTTP11ClientFactory):
    noisy = False


class MasterService(Service):
    """See the module.

    :ivar crew: the pure part.
    """

    name = "pbcluster gateway"

    def __init__(
        self,
        reactor: Any,
        parsed: Parsed[GatewayConfig],
        reloading: Reloading,
        *,
        reactor_name: str = "",
        listen: Listener | None = None,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        """
        :param reactor: what the tap obtained; ``IReactorProcess`` among others.
        :param reactor_name: for the workers; empty: Twisted's default.
        :param end: stops this process; called when a successor serves.
        """
        config = parsed.config
        self.crew = Crew(config.workers)
        self._reactor = reactor
        self._parsed = parsed
        self._config = config
        self._reloading = reloading
        self._reactor_name = reactor_name
        self._listen = listen if listen is not None else streams_of(reactor).listen
        self._entrance = Entrance(reactor, config, Place(), save=self._save, end=end)
        self._doors: Doors | None = None
        self._workers: dict[int, WorkerProcess] = {}
        self._timers: set[Any] = set()
        self._all_gone: Deferred[None] = Deferred()
        self._told = False
        self._gateway = ""
        self._ready_deadline: Any = None
        pool = HTTPConnectionPool(reactor, persistent=False)
        pool._factory = _Quiet
        client = HTTPClient(Agent(reactor, connectTimeout=master_pages.ASK_S, pool=pool))
        self._ask = master_pages.Asker(client, self._addresses)
        self._watchdog = Watchdog(reactor, self._ask, self._addresses, self._stuck)
        reloading.apply(LIVE, self._pass_on)

    def _registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()

        def watch(name: str, text: str, value: Callable[[int], float]) -> None:
            gauge = Gauge(name, text, ["worker"], namespace="pbcluster_gateway", registry=registry)
            for number in self.crew.numbers:
                gauge.labels(number).set_function(functools.partial(value, number))

        watch("worker_up", "1: it serves", lambda n: self.crew.state(n) is State.READY)
        watch("worker_restarts", "Times it was started again", self.crew.restarts)
        reloads = {
            "master_config_reloads": ("Reloads of the master", lambda: self._reloading.done),
            "master_config_reload_failed": (
                "1: the master did not use the last one and passed nothing on",
                lambda: self._reloading.failed,
            ),
        }
        for name, (text, value) in reloads.items():
            gauge = Gauge(name, text, namespace="pbcluster_gateway", registry=registry)
            gauge.set_function(value)
        return registry

    # -- start ------------------------------------------------------------------------------------

    def startService(self) -> None:
        """Start. :raises SystemExit: it cannot; one sentence on stderr says why."""
        super().startService()
        try:
            self._doors = self._entrance.doors(self._listen)
            site = master_pages.site(
                self._ask, self._registry(), self._config.workers, lambda: not self.running
            )
            self._doors.open(METRICS, site)
            self._copy_configuration()
        except (PBClusterError, OSError) as error:
            text = error.message if isinstance(error, PBClusterError) else str(error)
            log.critical("gateway {id} ends: {reason}", id=self._config.id, reason=text)
            print(f"pbgateway: {text}", file=sys.__stderr__, flush=True)
            raise SystemExit(1) from None
        # Workers are spawned once the reactor runs: it reaps them.
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if self.running:
            self._do(self.crew.begin())
            self._watchdog.start()
            self._ready_deadline = self._reactor.callLater(READY_WAIT_S, self._tell_ready)

    def _copy_configuration(self) -> None:
        given = self._parsed.given
        if given is not None and given.file is not None:
            beside = self._config.data_dir / f".{COPY}.{os.getpid()}"
            shutil.copyfile(given.file, beside)
            os.replace(beside, self._config.data_dir / COPY)

    def _arguments(self) -> list[str]:
        given = self._parsed.given
        if given is None:
            return []
        # A path in the file is relative to the file's own directory, and the copy lies elsewhere.
        config = self._reloading.current.config
        found = {name: getattr(config, name) for name in settings_of(type(config))}
        paths = {
            name: str(value.absolute()) for name, value in found.items() if isinstance(value, Path)
        }
        flags = {name: value for name, value in given.flags.items() if name not in paths}
        words = [f"--{k.replace('_', '-')}={v}" for k, v in (flags | paths).items()]
        if given.file is not None:
            words.insert(0, f"--config={self._config.data_dir / COPY}")
        return words

    # -- workers ----------------------------------------------------------------------------------

    def _do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Start(number, delay_s):
                    self._later(delay_s, number)
                case Adopt(keeper, number):
                    self._order(keeper, f"adopt {number}")
                case Release(keeper, number):
                    self._order(keeper, f"release {number}")

    def _order(self, number: int, text: str) -> None:
        if number in self._workers:
            self._workers[number].order(text)

    def _later(self, delay_s: float, number: int) -> None:
        def due() -> None:
            self._timers.discard(timer)
            if self.running:
                self._spawn(number)

        timer = self._reactor.callLater(delay_s, due)
        self._timers.add(timer)

    def _spawn(self, number: int) -> None:
        assert self._doors is not None
        public = [door for door in self._doors.all if door.option != METRICS]
        text, fds = worker.described(number, self._config.workers, public)
        one = WorkerProcess(
            lambda content: self._tells(number, content), lambda how: self._ended(number, how)
        )
        command = processes.launched(self._command())
        child_fds: dict[int, Any] = {worker.ORDERS_FD: "w", 1: 1, 2: 2, worker.TELLS_FD: "r"}
        child_fds |= {worker.FIRST_SOCKET_FD + place: fd for place, fd in enumerate(fds)}
        self.crew.started(number)
        self._workers[number] = one
        variables = environment() | {worker.VARIABLE: text}
        try:
            self._reactor.spawnProcess(one, command[0], command, variables, childFDs=child_fds)
        except OSError as error:
            self._ended(number, f"it cannot be started: {error.strerror}")

    def _command(self) -> list[str]:
        reactor = [f"--reactor={self._reactor_name}"] if self._reactor_name else []
        twistd = [sys.executable, "-P", "-m", "pbcluster.twistd", "--nodaemon", "--pidfile="]
        return [*twistd, *reactor, "pbgateway", *self._arguments()]

    def _tells(self, number: int, content: dict[str, Any]) -> None:
        if "leaves" in content:
            self._do(self.crew.leaves(number))
            return
        self._workers[number].metrics = str(content["metrics"])
        log.info("worker {number} serves (process {pid})", number=number, pid=content["pid"])
        self._do(self.crew.became_ready(number, self._reactor.seconds()))
        self._gateway = str(content["gateway"])
        if len(self.crew.ready()) == self._config.workers:
            self._tell_ready()

    def _ended(self, number: int, how: str) -> None:
        del self._workers[number]
        if self.running:
            log.error("worker {number} ended: {how}", number=number, how=how)
        self._do(self.crew.ended(number, self._reactor.seconds()))
        if not self.running and not self._workers and not self._all_gone.called:
            self._all_gone.callback(None)

    def _tell_ready(self) -> None:
        """All serve, or the time for it is over and some do."""
        if self._told or not self.running:
            return
        if not self.crew.ready():
            log.error("no worker serves yet")
            self._ready_deadline = self._reactor.callLater(READY_WAIT_S, self._tell_ready)
            return
        self._told = True
        if self._ready_deadline is not None and self._ready_deadline.active():
            self._ready_deadline.cancel()
        assert self._doors is not None
        host, port = self._doors.address(METRICS)
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._entrance.serves(None, gateway=self._gateway, metrics=url)
        warm_start.prune(self._config.data_dir / DIRECTORY, self._config.workers)
        log.info(
            "gateway {id} serves at {url} with {count} workers (pbcluster {version})",
            id=self._config.id,
            url=self._gateway,
            count=len(self.crew.ready()),
            version=compiled.version(),
        )

    def _stuck(self, number: int) -> None:
        log.error("worker {number} answers nothing any more and is killed", number=number)
        self._workers[number].signal("KILL")

    def _addresses(self) -> dict[int, str]:
        return {number: one.metrics for number, one in self._workers.items() if one.metrics}

    def _save(self) -> None:
        """Workers save by themselves, each half minute."""

    # -- what is passed on ------------------------------------------------------------------------

    def _pass_on(self, new: Parsed[GatewayConfig]) -> None:
        """The master accepted new settings: the workers read them too."""
        try:
            self._copy_configuration()
        except OSError as error:
            log.error("the settings cannot be passed on: {reason}", reason=error.strerror)
            return
        for one in self._workers.values():
            if one.metrics:  # earlier it has no handler yet, and reads the new ones anyway
                one.signal("HUP")

    # -- end --------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Have the workers drain; fires when all are gone, killed if they take too long."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.crew.stop()
        self._watchdog.stop()
        self._entrance.leaves()
        for timer in [*self._timers, self._ready_deadline]:
            if timer is not None and timer.active():
                timer.cancel()
        for one in self._workers.values():
            if self._entrance.handed_over:
                one.order("drain")
            else:
                one.signal("TERM")
        if self._doors is not None:
            # Theirs are enough: what nobody accepts any more must be refused, not kept waiting.
            await self._doors.close_public()
        self._entrance.closes()
        await self._wait_for_workers()
        if self._doors is not None:
            await self._doors.close()

    async def _wait_for_workers(self) -> None:
        if not self._workers:
            return
        config = self._reloading.current.config
        grace_s = config.drain_ready_s + config.drain_s + END_GRACE_S
        killing = self._reactor.callLater(grace_s, self._kill)
        await self._all_gone
        if killing.active():
            killing.cancel()
        # Its last words are on their way to the log.
        await deferLater(self._reactor, 0)

    def _kill(self) -> None:
        for number, one in self._workers.items():
            log.error("worker {number} does not end and is killed", number=number)
            one.signal("KILL")
