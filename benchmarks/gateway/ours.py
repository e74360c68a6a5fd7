"""This project's processes as a system under measurement, of this checkout or of others.

Another checkout runs with its own interpreter (``DIR/.venv``, if it has one) and its own
``pbcluster``, but with *these* benchmarks: a directory with nothing but a link to them stands first
on its path.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import attrs

from benchmarks.gateway import peers
from benchmarks.gateway.processes import family

HERE = peers.HERE
#: Where ``make compiled`` installs this checkout with its compiled modules.
COMPILED = HERE / "build" / "compiled"
#: Name of a system: this checkout as it stands, where a compiled one is measured too.
UNCOMPILED = "uncompiled"
#: A cluster starts within this time, or something is wrong.
START_WITHIN_S = 90.0


@attrs.frozen
class Checkout:
    """A directory with a ``pbcluster`` package.

    :ivar label: names it in tables. :ivar judged: targets are for it.
    :ivar reactor: its processes', as ``twistd`` names it; empty: what they use by themselves.
    """

    root: Path
    label: str = "pbcluster"
    judged: bool = True
    reactor: str = ""

    @property
    def python(self) -> str:
        own = self.root / ".venv" / "bin" / "python"
        return str(own) if own.exists() else sys.executable

    def environment(self, overlay: Path) -> dict[str, str]:
        """
        :param overlay: an existing directory for the link to these benchmarks.
        """
        with contextlib.suppress(FileExistsError):
            (overlay / "benchmarks").symlink_to(HERE / "benchmarks")
        return os.environ | {"PYTHONPATH": os.pathsep.join([str(overlay), str(self.root)])}


def checkouts(directories: Sequence[Path]) -> list[Checkout]:
    """What is measured: this checkout, or those that were named.

    :raises SystemExit: one holds no pbcluster.
    """
    if not directories:
        return own(HERE, COMPILED)
    for each in directories:
        if not (each / "pbcluster" / "gateway").is_dir():
            raise SystemExit(f"{each} holds no checkout of pbcluster")
    if len(directories) == 1:
        return [Checkout(directories[0].resolve())]
    names = [each.resolve().name for each in directories]
    return [
        Checkout(each.resolve(), f"pbcluster {name}")
        for each, name in zip(directories, names, strict=True)
    ]


def own(checkout: Path, compiled: Path) -> list[Checkout]:
    """This checkout: compiled, as it is installed, and beside it as it stands; the latter alone
    where it was not compiled.

    :raises SystemExit: what was compiled is of another state of the sources, or for another Python.
    """
    if not compiled.is_dir():
        return [Checkout(checkout)]
    package = checkout / "pbcluster"
    if not (compiled / "pbcluster" / f"rates{EXTENSION_SUFFIXES[0]}").exists():
        raise SystemExit(f"{compiled} is not compiled for this Python: run make compiled")
    for source in package.rglob("*.py"):
        copy = compiled / source.relative_to(checkout)
        if not copy.exists() or copy.read_bytes() != source.read_bytes():
            name = source.relative_to(checkout)
            raise SystemExit(f"{compiled} is of other sources ({name}): run make compiled")
    return [Checkout(compiled), Checkout(checkout, UNCOMPILED, judged=False)]


class Ours:
    """The gateway of a checkout with a lone member, before a stand-in node.

    :ivar told: what ``ours_host`` printed.
    """

    def __init__(
        self,
        checkout: Checkout,
        upstream_port: int,
        cores: Mapping[str, int | None],
        *,
        settings: Mapping[str, Any] | None = None,
        node: str = "stand-in",
        node_settings: Mapping[str, Any] | None = None,
        tenants: Sequence[str] = (peers.TENANT,),
    ) -> None:
        """
        :param upstream_port: of the loopback, see ``ours_host``.
        :param cores: kind of process → its core, None for any; ``other`` for all other kinds.
        :param settings: of the gateway; those that its checkout does not know are left out.
        :param node: what stands behind the gateway: ``stand-in``, ``front`` or ``whole``.
        """
        self.name = checkout.label
        self._overlay = tempfile.TemporaryDirectory(prefix="bench-overlay-")
        job = {
            "upstream_port": upstream_port,
            "tenants": list(tenants),
            "settings": dict(settings or {}),
            "cores": dict(cores),
            "node": node,
            "reactor": checkout.reactor,
            "node_settings": dict(node_settings or {}),
        }
        command = [checkout.python, "-P", "-m", "benchmarks.gateway.ours_host", json.dumps(job)]
        self._host = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=checkout.environment(Path(self._overlay.name)),
            start_new_session=True,
        )
        self.told = self._first_line(checkout)

    def _first_line(self, checkout: Checkout) -> dict[str, Any]:
        """What the host tells when all runs. :raises SystemExit: it ended instead."""
        assert self._host.stdout is not None
        line = self._host.stdout.readline()
        if not line:
            self.stop()
            raise SystemExit(f"the processes of {checkout.root} did not start")
        return dict(json.loads(line))

    def pids(self) -> list[int]:
        """The gateway's processes."""
        return family(int(self.told["pid"]))

    @property
    def port(self) -> int:
        return int(self.told["port"])

    def logs(self) -> list[Path]:
        """The files of its access log: its own, or everything that it prints."""
        own = sorted(Path(self.told["data"]).glob("access*.log*"))
        return own or [Path(self.told["log"])]

    def has_option(self, name: str) -> bool:
        return name in self.told["options"]

    def stop(self) -> None:
        """End all of it."""
        assert self._host.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._host.stdin.close()
        try:
            self._host.wait(START_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._host.kill()
            self._host.wait()
        self._overlay.cleanup()
