"""The machine on which figures were taken, and the programs' versions, in words."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from pbcluster import __version__
from pbcluster.binaries import VERSIONS

#: Program → (command, pattern of its version).
_ASKED = {
    "nginx": (("nginx", "-v"), r"nginx/([\d.]+)"),
    "haproxy": (("haproxy", "-v"), r"version ([\d.]+)"),
    "caddy": (("caddy", "version"), r"v?([\d.]+)"),
    "etcd": (("etcd", "--version"), r"etcd Version: ([\d.]+)"),
    "wrk": (("wrk", "-v"), r"wrk (?:debian/)?([\d.]+)"),
}
#: Binaries that are pinned by the project.
_PINNED = {"PocketBase": "pocketbase", "Litestream": "litestream", "SeaweedFS": "weed"}


def machine() -> str:
    """Its cores, its processor's name, its memory and its kernel."""
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel = platform.release().partition("-")[0]
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB, Linux {kernel}"


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """pbcluster's own, Python's, and those of the named programs, as far as they are there."""
    python = platform.python_version()
    if sys.base_prefix == "/usr":
        python += " (the system's)"
    found = {"pbcluster": own(), "Python": python}
    for name in names:
        if name in _PINNED:
            found[name] = VERSIONS[_PINNED[name]]
        elif (version := _ask(name)) is not None:
            found[name] = version
    return found


def own() -> str:
    """The version, and the commit if this is a checkout."""
    here = Path(__file__).parent.parent
    command = ["git", "-C", str(here), "rev-parse", "--short", "HEAD"]
    if shutil.which("git") is None or not (here / ".git").exists():
        return __version__
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    commit = done.stdout.strip()
    return f"{__version__} ({commit})" if commit else __version__


def _ask(name: str) -> str | None:
    command, pattern = _ASKED[name]
    path = shutil.which(command[0]) or shutil.which(f"/usr/sbin/{command[0]}")
    if path is None:
        return None
    done = subprocess.run(
        [path, *command[1:]], capture_output=True, text=True, check=False, timeout=10
    )
    version = re.search(pattern, done.stdout + done.stderr)
    return version[1] if version else None


def lacking(programs: tuple[str, ...]) -> list[str]:
    """Those that are not installed."""
    return [
        each
        for each in programs
        if shutil.which(each) is None and shutil.which(f"/usr/sbin/{each}") is None
    ]
