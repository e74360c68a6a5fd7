"""A real cluster as a story's shape wants it: behind proxies, or below a supervisor.

Without a supervisor nothing restarts by itself, and processes die with ours. With one, it is ended
by
:meth:`StageCluster.close`.
"""

from __future__ import annotations

import subprocess
import sys

import attrs

from pbcluster import config
from pbcluster.cli import procfs, running, state
from pbcluster.cli.child import ProcessSpec
from pbcluster.cli.layout import to_toml, write_file
from pbcluster.cli.spec import service_environment
from pbcluster.testing.chaos.kernel_net import HERE, THERE, KernelNet
from pbcluster.testing.chaos.story import Shape
from pbcluster.testing.cluster import SERVE_WITHIN_S, RealCluster

SUPERVISOR_GRACE_S = 90.0
#: Of a kernel shape.
FAR_NODE = "node_2"


class StageCluster(RealCluster):
    """A real cluster; of a *supervised* shape ``pbcluster up``'s supervisor starts its processes.

    :ivar is_supervised: whether it does. :ivar is_proxied: whether there are proxies.
    """

    def __init__(self, shape: Shape, seed: int, kernel: KernelNet | None = None) -> None:
        """
        :param kernel: of a kernel shape: the network, which this thread is in.
        """
        self._kernel = kernel
        super().__init__(
            nodes=shape.nodes,
            members=shape.members,
            proxied=shape.proxied,
            seed=seed,
            address=HERE if kernel is not None else None,
            change_spec=self._placed,
        )
        self.is_proxied = shape.proxied
        self.is_supervised = shape.supervised
        self._supervisor: subprocess.Popen[bytes] | None = None
        if kernel is not None:
            file = self.where.config(FAR_NODE)
            content = config.read_toml(file)
            content["listen"] = f"{THERE}:{self.plan.process(FAR_NODE).ports['http']}"
            write_file(file, to_toml(content))

    @property
    def kernel(self) -> KernelNet:
        """The network of a kernel shape."""
        if self._kernel is None:
            raise ValueError("this cluster has no network of its own")
        return self._kernel

    @property
    def is_kernel(self) -> bool:
        """Whether it has."""
        return self._kernel is not None

    def node_url(self, name: str) -> str:
        """Where a node listens."""
        far = self._kernel is not None and name == FAR_NODE
        port = self.plan.process(name).ports["http"]
        return f"http://{THERE if far else self.plan.host}:{port}"

    def _placed(self, spec: ProcessSpec) -> ProcessSpec:
        if self._kernel is None or spec.id != FAR_NODE:
            return spec
        return attrs.evolve(spec, argv=self._kernel.there(spec.argv))

    def start(self, *names: str, wait: bool = True, timeout_s: float = SERVE_WITHIN_S) -> None:
        """As :meth:`RealCluster.start`; of a supervised one: its supervisor."""
        if not self.is_supervised:
            super().start(*names, wait=wait, timeout_s=timeout_s)
            return
        self.where.run.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, "-P", "-m", "pbcluster.cli.main", "supervise"]
        with self.where.supervisor_log.open("ab") as log:
            self._supervisor = subprocess.Popen(
                [*argv, "--dir", str(self.where.root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=service_environment(),
                cwd=self.where.root,
                start_new_session=True,
            )
        self.wait_until(lambda: state.supervisor(self.where) is not None, "a supervisor")
        running.wait_serving(self.where, lambda now: None)

    def close(self) -> None:
        """End everything."""
        if self._supervisor is not None and self._supervisor.poll() is None:
            self._supervisor.terminate()
            try:
                self._supervisor.wait(SUPERVISOR_GRACE_S)
            except subprocess.TimeoutExpired:
                below = procfs.descendants(self._supervisor.pid)
                self._supervisor.kill()
                procfs.end_all(below, grace_s=2.0)
        super().close()
