"""Two network namespaces with a cable between them, and what the kernel does to its packets.

The harness, and all of a cluster but one node, live in the first; that node lives in the second.
Faults are rules of nftables on what comes in at either end, so that TCP meets them as it would meet
a network that loses packets: nothing is reset, no handshake comes through, what is lost is sent
again.

A thread enters a namespace, and whatever it starts is in there too (setns(2)). Needs root, iproute2
and nftables. Namespaces are named after this process and are gone when it closes them; the
machine's own network is never touched.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable
from itertools import count
from types import TracebackType

import attrs

from pbcluster.errors import ProcessFailed

#: Addresses of the two ends; they exist in the namespaces only.
HERE, THERE = "10.99.77.1", "10.99.77.2"
_TIMEOUT_S = 20.0
_CLONE_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"
_numbers = count(1)
#: How much of the packets *lossy* loses, of a hundred.
LOSS = 15


def unavailable() -> str:
    """Why there can be no such network here; empty: it can be made."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [name for name in ("ip", "nft", "nsenter") if shutil.which(name) is None]
    return f"needs {', '.join(missing)} (iproute2, nftables, util-linux)" if missing else ""


@attrs.frozen
class Way:
    """TCP packets between the two ends.

    :ivar here: ports of the first end; ``there``: of the second.
    """

    here: tuple[int, ...] = ()
    there: tuple[int, ...] = ()


class KernelNet:
    """See the module. Used in a ``with`` block, within which the calling thread is in the first
    namespace; so are the threads and processes that it starts there."""

    def __init__(self) -> None:
        self._names = [f"pbchaos-{os.getpid()}-{next(_numbers)}-{end}" for end in "ab"]
        self._outside = -1

    def __enter__(self) -> KernelNet:
        first, second = self._names
        try:
            for name in self._names:
                _run("ip", "netns", "add", name)
            _run(
                *("ip", "-n", first, "link", "add", "cable", "type", "veth"),
                *("peer", "name", "cable", "netns", second),
            )
            for name, address in ((first, HERE), (second, THERE)):
                _run("ip", "-n", name, "addr", "add", f"{address}/30", "dev", "cable")
                _run("ip", "-n", name, "link", "set", "cable", "up")
                _run("ip", "-n", name, "link", "set", "lo", "up")
            self._outside = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
            inside = os.open(f"/run/netns/{first}", os.O_RDONLY | os.O_CLOEXEC)
            _enter(inside)
            os.close(inside)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        if self._outside >= 0:
            _enter(self._outside)
            os.close(self._outside)
            self._outside = -1
        for name in self._names:
            subprocess.run(
                ["ip", "netns", "del", name], timeout=_TIMEOUT_S, check=False, capture_output=True
            )

    def there(self, argv: Iterable[str]) -> tuple[str, ...]:
        """A command that runs another one in the second namespace."""
        return ("nsenter", f"--net=/run/netns/{self._names[1]}", *argv)

    def lose(self, ways: Iterable[Way], *, going: bool, coming: bool, percent: int = 100) -> None:
        """Lose packets of these ways until :meth:`heal`.

        :param going: those from the second end to the first. :param coming: those to the second.
        :param percent: so many of a hundred.
        """
        share = "" if percent >= 100 else f"numgen random mod 100 < {percent} "
        first, second = self._names
        for wanted, name, source in ((going, first, THERE), (coming, second, HERE)):
            own, far = ("here", "there") if source == THERE else ("there", "here")
            rules = [
                f"ip saddr {source} tcp {side} {{ {', '.join(map(str, ports))} }} {share}drop"
                for way in ways
                for side, ports in (("dport", getattr(way, own)), ("sport", getattr(way, far)))
                if ports and wanted
            ]
            self._rules(name, rules)

    def heal(self) -> None:
        """Let all packets pass."""
        for name in self._names:
            self._rules(name, [])

    def _rules(self, name: str, rules: Iterable[str]) -> None:
        """These and no others, in one step."""
        table = "table inet pbchaos"
        lines = [
            *(f"add {table}", f"delete {table}", f"{table} {{", "chain coming {"),
            "type filter hook input priority 0; policy accept;",
            *(*rules, "}", "}", ""),
        ]
        _run("nsenter", f"--net=/run/netns/{name}", "nft", "-f", "-", given="\n".join(lines))


def _run(*argv: str, given: str = "") -> None:
    """:raises ProcessFailed: it did not work; says why."""
    done = subprocess.run(
        argv, input=given, text=True, timeout=_TIMEOUT_S, check=False, capture_output=True
    )
    if done.returncode:
        raise ProcessFailed(f"{' '.join(argv)}: {done.stderr.strip()}")


def _enter(descriptor: int) -> None:
    """Move this thread into a network namespace (``os.setns`` is newer than Python 3.11)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")
