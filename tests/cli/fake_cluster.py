"""Runs a real Supervisor over fake services: ``python -m tests.cli.fake_cluster DIR [NAME=HOW…]``.

``--no-restart`` as an argument of its own does what it does for ``up``. Told to read the plan
again, it finds the names in the file ``DIR/names``, one a line.
"""

import sys
from pathlib import Path

from pbcluster.cli import managed, supervisor
from pbcluster.cli.child import ProcessSpec, clean_environment
from pbcluster.cli.layout import ClusterDir
from pbcluster.cli.supervisor import Supervisor
from pbcluster.errors import PBClusterError

FAKE = Path(__file__).with_name("fake_service.py")
PROCESSES = {"s3_1": "s3", "member_1": "member", "node_1": "node", "gateway_1": "gateway"}


def fake_spec(where: ClusterDir, name: str, kind: str, how: str = "") -> ProcessSpec:
    data = where.data(name)
    ready = data / "ready.json"
    argv = [sys.executable, str(FAKE), str(ready), str(where.root / "journal"), name]
    return ProcessSpec(
        kind=kind,
        id=name,
        argv=tuple(argv + ([how] if how else [])),
        env=clean_environment(),
        cwd=data,
        log_file=where.log(name),
        address=f"fake://{name}",
        ready_file=ready,
        stop_grace_s=1.0 if how == "deaf" else 10.0,
    )


def main() -> int:
    where = ClusterDir.at(sys.argv[1])
    how = dict(word.split("=") for word in sys.argv[2:] if "=" in word)
    # The relations stay, the test does not wait for minutes.
    managed.FIRST_DELAY_S = 0.1
    managed.LONGEST_DELAY_S = 0.4
    supervisor.SERVE_WITHIN_S = 4.0
    supervisor.LEFTOVER_GRACE_S = 1.0
    kinds = PROCESSES | {name: name.split("_")[0] for name in how}
    specs = [fake_spec(where, name, kind, how.get(name, "")) for name, kind in kinds.items()]

    def read_again() -> list[ProcessSpec]:
        names = (where.root / "names").read_text().split()
        return [fake_spec(where, name, name.split("_")[0], how.get(name, "")) for name in names]

    restart = "--no-restart" not in sys.argv
    try:
        Supervisor(where, specs, restart=restart, read_again=read_again).run()
    except PBClusterError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
