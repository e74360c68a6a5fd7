"""A real cluster as a story's shape wants it: behind proxies, or below a supervisor.

Without a supervisor nothing restarts by itself, and processes die with ours. With one, it is ended
by
:meth:`StageCluster.close`.
"""

from __future__ import annotations

import subprocess
import sys

from pbcluster.cli import procfs, running, state
from pbcluster.cli.spec import service_environment
from pbcluster.testing.chaos.story import Shape
from pbcluster.testing.cluster import SERVE_WITHIN_S, RealCluster

SUPERVISOR_GRACE_S = 90.0


class StageCluster(RealCluster):
    """A real cluster; of a *supervised* shape ``pbcluster up``'s supervisor starts its processes.

    :ivar is_supervised: whether it does. :ivar is_proxied: whether there are proxies.
    """

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__(nodes=shape.nodes, members=shape.members, proxied=shape.proxied, seed=seed)
        self.is_proxied = shape.proxied
        self.is_supervised = shape.supervised
        self._supervisor: subprocess.Popen[bytes] | None = None

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
