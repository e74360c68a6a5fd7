"""PocketBase, Litestream and SeaweedFS: where they are, and that they are the builds we tested.

The binaries come from packages that individuals repackage, so each one's SHA-256 is compared with
the table below before it is run. A build of one's own is named by ``--binary NAME=PATH`` and is not
compared. Hashing 200 MB takes a second or two: it happens in a thread, and a file that was hashed
before and has not changed (path, size, times, inode) is believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pbcluster.errors import ConfigError

#: Name → the version that everything here was measured with.
VERSIONS: Mapping[str, str] = {"pocketbase": "0.40.6", "litestream": "0.5.17", "weed": "4.48"}
NAMES = tuple(VERSIONS)
#: (machine as ``uname -m`` says, name) → SHA-256 of the packages' binaries.
SHA256: Mapping[tuple[str, str], str] = {
    (
        "x86_64",
        "pocketbase",
    ): "7139ae3da24ddf4bb28ec343376a16ca9a5fe8579a099938f044829cadba8cfe",
    (
        "x86_64",
        "litestream",
    ): "200e4248a4cc83da2ca52babe66774f1a71afa993d31373adb0ce0fe12154647",
    ("x86_64", "weed"): "8dc07b173ff9ad6068a601213174f6009cf7e66684e88d87f0fa20da3dbff876",
}
CACHE_NAME = "binaries.json"
_BLOCK_BYTES = 1024 * 1024


def parse_overrides(given: Iterable[str]) -> dict[str, Path]:
    """``NAME=PATH`` words as a mapping. :raises ConfigError: a word of another form."""
    found = {}
    for word in given:
        name, equals, path = word.partition("=")
        if name not in NAMES or not equals or not path:
            raise ConfigError(
                f"--binary {word!r} is not allowed: NAME=PATH, NAME one of {', '.join(NAMES)}"
            )
        found[name] = Path(path).expanduser().absolute()
    return found


def locate(name: str, overrides: Mapping[str, Path] | None = None) -> Path:
    """Where the binary is: given, else beside our Python, else on PATH.

    :raises ConfigError: nowhere, or not executable.
    """
    path = (overrides or {}).get(name)
    if path is None:
        beside = Path(sys.executable).parent / name
        found = str(beside) if beside.is_file() else shutil.which(name)
        if found is None:
            raise ConfigError(
                f"the program {name!r} is neither beside {sys.executable} nor on PATH: install "
                f"pbcluster's requirements again, or give --binary {name}=PATH"
            )
        path = Path(found).absolute()
    if not path.is_file() or not os.access(path, os.X_OK):
        raise ConfigError(f"{path} ({name}) is not an executable file")
    return path


def verify(
    names: Iterable[str], given: Iterable[str] = (), cache_dir: Path | None = None
) -> dict[str, Path]:
    """Locate binaries and compare their hashes. Blocks for a second or two: use a thread.

    :param names: which are needed.
    :param given: the words of ``--binary``.
    :param cache_dir: where to remember what was hashed; None: nowhere.
    :returns: name → path.
    :raises ConfigError: missing, an unknown machine, or another build than expected.
    """
    overrides = parse_overrides(given)
    paths = {name: locate(name, overrides) for name in names}
    cache = _Cache(cache_dir)
    for name, path in paths.items():
        if name not in overrides:
            _compare(name, path, cache)
    cache.save()
    return paths


async def verified(
    names: Iterable[str], given: Iterable[str] = (), cache_dir: Path | None = None
) -> dict[str, Path]:
    """As :func:`verify`, off the reactor's thread."""
    from twisted.internet.threads import deferToThread  # the command line needs no reactor

    return await deferToThread(verify, tuple(names), tuple(given), cache_dir)


def _compare(name: str, path: Path, cache: _Cache) -> None:
    machine = platform.machine()
    expected = SHA256.get((machine, name))
    own = f"to use it all the same give --binary {name}={path}"
    if expected is None:
        raise ConfigError(f"no build of {name} is known for this machine ({machine}); {own}")
    actual = cache.sha256(path)
    if actual != expected:
        raise ConfigError(
            f"{path} is not {name} {VERSIONS[name]} as it was tested: its SHA-256 is {actual}, "
            f"expected {expected}; {own}"
        )


class _Cache:
    """File identity → SHA-256, in a small JSON file. A damaged one is made anew."""

    def __init__(self, directory: Path | None) -> None:
        self._file = directory / CACHE_NAME if directory is not None else None
        self._known: dict[str, str] = {}
        self._used: dict[str, str] = {}
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError):
                content: Any = json.loads(self._file.read_text(encoding="utf-8"))
                self._known = content if isinstance(content, dict) else {}

    def sha256(self, path: Path) -> str:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            facts = (status.st_dev, status.st_ino, status.st_size)
            # The change time cannot be set back by whoever replaces the content.
            key = ":".join(map(str, (path, *facts, status.st_mtime_ns, status.st_ctime_ns)))
            if key not in self._known:
                digest = hashlib.sha256()
                while block := stream.read(_BLOCK_BYTES):
                    digest.update(block)
                self._known[key] = digest.hexdigest()
        self._used[key] = self._known[key]
        return self._known[key]

    def save(self) -> None:
        if self._file is None or not self._used:
            return
        beside = self._file.with_name(f"{CACHE_NAME}.{os.getpid()}")
        with contextlib.suppress(OSError):  # only time is lost without it
            self._file.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(json.dumps(self._used), encoding="utf-8")
            beside.replace(self._file)
