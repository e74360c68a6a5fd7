"""Runs a process under strace from its first instruction, and reads what strace wrote.

strace runs beside the process and not above it (``-D``): the process keeps its id, its parent and
its signals. A system call has two moments, its beginning and its end, here as line numbers of the
output: strace writes both in the order in which the kernel stopped the threads.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from pbcluster.cli.child import ProcessSpec

#: Longer than any buffer that is traced whole.
STRING_BYTES = 2 * 1024 * 1024
_LINE = re.compile(r"^(?P<thread>\d+) +(?P<rest>.*)$", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_RESUMED = re.compile(r"^<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$", re.DOTALL)
_CALL = re.compile(r"^(?P<name>\w+)\((?P<args>.*)\) += (?P<result>-?\d+|\?).*$", re.DOTALL)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


@attrs.frozen
class Call:
    """One system call that returned.

    :ivar fd: its first argument if that is a number, else -1.
    :ivar args: its arguments without the bytes.
    :ivar data: the bytes of all its buffers, one after the other.
    :ivar result: what it returned; -1: an error.
    :ivar begun: and ``ended``: line numbers.
    """

    thread: int
    name: str
    fd: int
    args: str
    data: bytes
    result: int
    begun: int
    ended: int


def why_not() -> str:
    """Why nothing can be traced here; empty: it can."""
    program = shutil.which("strace")
    if program is None:
        return "needs Debian's strace"
    tried = subprocess.run(
        [program, "-D", "-f", "-o", "/dev/null", "true"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return f"strace may not trace here: {tried.stderr[:200]}" if tried.returncode else ""


def traced(
    spec: ProcessSpec, output: Path, calls: Sequence[str], *, inject: str = ""
) -> ProcessSpec:
    """``spec`` under strace.

    :param calls: the system calls that are written; all others run at full speed.
    :param inject: what is done to some, as strace's ``-e inject=`` takes it.
    """
    argv = ["strace", "-D", "-f", "--seccomp-bpf", "-xx", "-s", str(STRING_BYTES)]
    argv += ["-e", f"trace={','.join(calls)}", "-e", "signal=none", "-o", str(output)]
    argv += ["-e", f"inject={inject}"] if inject else []
    return attrs.evolve(spec, argv=(*argv, *spec.argv))


def parse(lines: Iterable[str]) -> list[Call]:
    """The calls that returned, in the order of their beginnings."""
    found: list[Call] = []
    begun: dict[tuple[int, str], tuple[int, str]] = {}
    for number, line in enumerate(lines):
        matched = _LINE.match(line.rstrip("\n"))
        if matched is None:
            continue
        thread, rest = int(matched["thread"]), matched["rest"]
        first = number
        if rest.endswith(_UNFINISHED):
            name = rest.partition("(")[0]
            begun[thread, name] = (number, rest.removesuffix(_UNFINISHED))
            continue
        resumed = _RESUMED.match(rest)
        if resumed is not None:
            first, head = begun.pop((thread, resumed["name"]), (number, f"{resumed['name']}("))
            rest = head + resumed["rest"]
        call = _call(thread, rest, first, number)
        if call is not None:
            found.append(call)
    return sorted(found, key=lambda call: call.begun)


def _call(thread: int, text: str, begun: int, ended: int) -> Call | None:
    matched = _CALL.match(text)
    if matched is None or matched["result"] == "?":
        return None
    data = b"".join(
        bytes.fromhex(part.replace("\\x", "")) for part in _STRING.findall(matched["args"])
    )
    args = _STRING.sub('""', matched["args"])
    fd = re.match(r"\d+", args)
    return Call(
        thread=thread,
        name=matched["name"],
        fd=int(fd[0]) if fd else -1,
        args=args,
        data=data,
        result=int(matched["result"]),
        begun=begun,
        ended=ended,
    )
