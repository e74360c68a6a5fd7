"""A real cluster for tests: real processes, sockets, S3 and files, in a directory of its own.

The directory comes from the code behind ``pbcluster init`` and every process from the specs behind
``pbcluster up``, so that a test starts what a user starts; but nothing is restarted by itself: the
test decides who runs, who is killed and who is frozen.

All calls block with a bound and may be made from any one thread, so under trial use
``deferToThread(cluster.start)``. Processes are started from one thread of the harness's own, since
the kernel ends a child with the *thread* that made it; they die with the test run, however it ends.
:meth:`RealCluster.close` (or leaving the ``with`` block) ends them by their identities. Whoever
waits in vain gets the end of every log in the error (:meth:`RealCluster.logs`).

    with RealCluster(nodes=2) as cluster:
        cluster.start()
        tenant = cluster.create_tenant("shop", "me@example.com", "long enough")
        cluster.kill9(tenant["nodeID"])
        cluster.wait_tenant("shop")

With ``proxied=True`` every way between two processes goes through :attr:`RealCluster.net`, which
cuts, blocks, delays and damages it (:mod:`pbcluster.testing.proxies`).
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import attrs

from pbcluster.cli import initialise, procfs
from pbcluster.cli.admin import AdminClient, wait_tenant_answers
from pbcluster.cli.child import Child, ProcessSpec
from pbcluster.cli.http import Answer, ask
from pbcluster.cli.initialise import Wish
from pbcluster.cli.layout import KINDS, ClusterDir, Plan
from pbcluster.cli.spec import cluster_serves, specs
from pbcluster.cli.supervisor import START_GROUPS, STOP_ORDER
from pbcluster.errors import DeadlineExceeded, ProcessFailed
from pbcluster.testing.proxies import ProxyNet
from pbcluster.testing.routed import Owners, route_through

SERVE_WITHIN_S = 60.0
_POLL_S = 0.03


class RealCluster:
    """One cluster under the control of a test."""

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        nodes: int = 2,
        members: int | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        change_spec: Callable[[ProcessSpec], ProcessSpec] = lambda spec: spec,
        insecure_plain_sockets: bool = False,
        node_tls: bool = False,
        proxied: bool = False,
        seed: int = 0,
        address: str | None = None,
    ) -> None:
        """
        :param directory: where it lives; None: a new temporary one, removed at the end. One that
            holds a cluster already is used again, with its data and ports.
        :param members: control-plane members, 1, 3 or 5; None: the default, or what is there.
        :param settings: kind ("node", …) → settings for all processes of that kind.
        :param change_spec: a last word on how a process is started.
        :param node_tls: whether gateway and nodes speak TLS.
        :param proxied: whether the processes meet through proxies.
        :param seed: of the proxies' dice.
        :param address: where its processes listen, as ``init --address`` has it; None: on loopback.
        """
        self._temporary = directory is None
        root = Path(tempfile.mkdtemp(prefix="pbcluster-")) if directory is None else Path(directory)
        # A node that is root gives its tenants users of their own, who must pass through.
        root.chmod(root.stat().st_mode | 0o011)
        self.where = ClusterDir.at(root)
        wish = Wish(
            nodes=nodes,
            members=members,
            gateway_port=0,
            admin_port=0,
            settings=settings,
            insecure_plain_sockets=insecure_plain_sockets or None,
            node_tls=node_tls or None,
            address=address,
        )
        if self.where.exists():
            wish = attrs.evolve(wish, gateway_port=None, admin_port=None)
        self.plan: Plan = initialise.ensure(self.where, wish)
        self._children = {
            spec.id: Child(change_spec(spec)) for spec in specs(self.where, self.plan)
        }
        ports = [port for process in self.plan.processes for port in process.ports.values()]
        self._owners = Owners()
        self._net = ProxyNet(self._whose, seed, ports) if proxied else None
        if self._net is not None:
            route_through(self._net, self.where, self.plan)
        self._below: set[procfs.Identity] = set()
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")

    def __enter__(self) -> RealCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- where things are -------------------------------------------------------------------------

    @property
    def gateway_url(self) -> str:
        """URL of the gateway; send the tenant's host name as Host."""
        return self.plan.gateway_url

    @property
    def admin(self) -> AdminClient:
        """A client of the admin API, of all members."""
        return AdminClient.of(self.plan, self.where.token())

    @property
    def net(self) -> ProxyNet:
        """The ways between the processes of a cluster that was made with ``proxied=True``."""
        if self._net is None:
            raise ValueError("this cluster was made without proxied=True")
        return self._net

    def ids(self, kind: str = "") -> list[str]:
        """Ids of all processes, or of those of a kind."""
        return [p.id for p in self.plan.processes if kind in ("", p.kind)]

    def host(self, name: str) -> str:
        """Host name of a tenant."""
        return f"{name}.{self.plan.base_domain}"

    def child(self, name: str) -> Child:
        """The process ``name``. :raises InvalidInput: there is none."""
        self.plan.process(name)
        return self._children[name]

    def pid(self, name: str) -> int | None:
        """Its process id while it lives."""
        return self.child(name).pid

    def ready(self, name: str) -> dict[str, Any]:
        """What it wrote into its ready file."""
        return self.child(name).ready()

    # -- life -------------------------------------------------------------------------------------

    def start(self, *names: str, wait: bool = True, timeout_s: float = SERVE_WITHIN_S) -> None:
        """Start processes (all, without names) and wait until they serve.

        :raises DeadlineExceeded, ProcessFailed: see :meth:`wait_serving`.
        """
        until = time.monotonic() + timeout_s
        for kinds in START_GROUPS if not names else (KINDS,):
            group = [
                child
                for name, child in self._children.items()
                if child.spec.kind in kinds and (not names or name in names)
            ]
            for name in set(names) - set(self._children):
                self.plan.process(name)
            for child in group:
                if child.pid is None:
                    self._spawner.submit(child.start).result()
            if wait:
                ids = (child.spec.id for child in group)
                self.wait_serving(*ids, timeout_s=until - time.monotonic())
        if wait and not names:
            self.wait_serving(timeout_s=until - time.monotonic())

    def wait_serving(self, *names: str, timeout_s: float = SERVE_WITHIN_S) -> None:
        """Wait until these processes (all, without names) say that they serve.

        :raises ProcessFailed: one ended instead; with the end of its log.
        :raises DeadlineExceeded: one does not within ``timeout_s`` seconds.
        """
        waiting = [self.child(name) for name in names or self.ids()]

        def all_serve() -> bool:
            for child in waiting:
                reason = child.ended()
                if reason is not None:
                    raise ProcessFailed(f"{child.spec.id} ended ({reason}):\n{child.tail()}")
            return all(child.serving() for child in waiting)

        self.wait_until(all_serve, f"{[c.spec.id for c in waiting]} to serve", timeout_s)
        if not names:
            whole = lambda: cluster_serves(self.where, self.plan)  # noqa: E731
            self.wait_until(whole, "the whole cluster to serve", timeout_s)

    def stop(self, name: str) -> bool:
        """SIGTERM, then SIGKILL after its grace. :returns: whether it ended by itself."""
        self._remember(name)
        return self.child(name).stop()

    def kill9(self, name: str, *, with_children: bool = True) -> None:
        """SIGKILL to a process, by default with everything below it; returns when it is gone."""
        self._remember(name)
        child = self.child(name)
        child.kill(with_children=with_children)
        if not child.wait(SERVE_WITHIN_S):
            raise DeadlineExceeded(f"{name} survives SIGKILL")

    def kill9_all(self) -> None:
        """SIGKILL to every process and everything below, as a power failure would."""
        for name in self._children:
            self._remember(name)
        for child in self._children.values():
            child.kill(with_children=True)
        for child in self._children.values():
            child.wait(SERVE_WITHIN_S)

    def restart(self, name: str) -> None:
        """Stop it if it runs, start it, wait until it serves."""
        self.stop(name)
        self.start(name)

    def sigstop(self, name: str, *, with_children: bool = False) -> None:
        """Freeze a process, and what is below it if so wished."""
        self._signal(name, signal.SIGSTOP, with_children)

    def sigcont(self, name: str, *, with_children: bool = False) -> None:
        """Let it go on."""
        self._signal(name, signal.SIGCONT, with_children)

    def stop_s3(self) -> None:
        """End the cluster's S3: whoever asks it is refused, until :meth:`start_s3`."""
        self.stop(self.ids("s3")[0])

    def freeze_s3(self) -> None:
        """Freeze the cluster's S3: whoever asks it waits, until :meth:`start_s3`."""
        self.sigstop(self.ids("s3")[0], with_children=True)

    def start_s3(self) -> None:
        """S3 serves again, with what it had."""
        (name,) = self.ids("s3")
        self.sigcont(name, with_children=True)
        self.start(name)

    def children_of(self, name: str) -> list[procfs.Identity]:
        """Everything below a process, while it lives."""
        pid = self.pid(name)
        return [] if pid is None else procfs.descendants(pid)

    def _signal(self, name: str, number: signal.Signals, with_children: bool) -> None:
        self.child(name).send(number)
        for who in self.children_of(name) if with_children else ():
            procfs.send(who, number)

    def _whose(self, port: int, door: int) -> str:
        """The process whose connection comes from a port to a proxy's door."""
        running = {name: child.pid for name, child in self._children.items()}
        return self._owners.of(
            port, door, {name: pid for name, pid in running.items() if pid is not None}
        )

    def _remember(self, name: str) -> None:
        """What is below a process now would be lost from sight when the process is gone."""
        self._below.update(self.children_of(name))

    # -- tenants ----------------------------------------------------------------------------------

    def create_tenant(
        self, name: str, email: str, password: str, *, wait: bool = True, **more: Any
    ) -> dict[str, Any]:
        """Create a tenant; with ``wait`` it answers through the gateway when this returns."""
        created = self.admin.create_tenant(name, email, password, **more)
        if wait:
            self.wait_tenant(name)
        return created

    def wait_tenant(self, name: str, timeout_s: float = SERVE_WITHIN_S) -> None:
        """Wait until a tenant's health check answers 200 through the gateway."""
        wait_tenant_answers(self.gateway_url, self.host(name), timeout_s)

    def ask_tenant(
        self,
        name: str,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout_s: float = 30.0,
    ) -> Answer:
        """One request to a tenant through the gateway."""
        merged = {"Host": self.host(name)} | dict(headers or {})
        return ask(method, self.gateway_url + path, headers=merged, body=body, timeout_s=timeout_s)

    # -- waiting and the end ----------------------------------------------------------------------

    def wait_until(
        self, happened: Callable[[], bool], what: str, timeout_s: float = SERVE_WITHIN_S
    ) -> None:
        """Ask again and again. :raises DeadlineExceeded: ``happened`` stayed false."""
        until = time.monotonic() + timeout_s
        while not happened():
            if time.monotonic() > until:
                raise DeadlineExceeded(f"waited {timeout_s:.0f} s for {what}\n{self.logs()}")
            time.sleep(_POLL_S)

    def logs(self) -> str:
        """The end of every process's log, for a failed test's output."""
        return "\n".join(
            f"--- {name} ({child.ended() or 'running'}) {child.spec.log_file}\n{child.tail()}"
            for name, child in self._children.items()
        )

    def close(self) -> None:
        """End every process, what is below it too, and remove a temporary directory."""
        try:
            for kind in STOP_ORDER:
                group = [c for c in self._children.values() if c.spec.kind == kind and c.pid]
                for child in group:
                    self._remember(child.spec.id)
                    if kind == "s3" and self._temporary:
                        # It takes a second to end by itself, and what it has goes with it.
                        child.kill(with_children=True)
                        continue
                    # A frozen process would not see its SIGTERM.
                    self._signal(child.spec.id, signal.SIGCONT, with_children=True)
                    child.send(signal.SIGTERM)
                for child in group:
                    child.stop()
            procfs.end_all(sorted(self._below, key=lambda who: who.pid), grace_s=2.0)
        finally:
            self._spawner.shutdown()
            if self._net is not None:
                self._net.close()
            if self._temporary:
                shutil.rmtree(self.where.root, ignore_errors=True)
