"""Throws damaged requests and responses at the proxy core, for as long as one likes.

    python -m pbcluster.testing.fuzz_http --seconds 60

The cases of the corpus are damaged: bytes and line ends changed, lines doubled, swapped and
dropped, pieces of other cases put in. What must hold for each is in ``http_judge``. With atheris
(``pip install atheris``) its coverage guides the damage; without it chance does, and the same seed
gives the same bytes. The first failure ends the run with the bytes.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pbcluster.testing import http_judge
from pbcluster.testing.http_corpus import REQUESTS, RESPONSES
from pbcluster.testing.http_judge import Unsound, judge_request, judge_response

#: Longer cases take longer, and are about sizes only.
SEED_BYTES, MAX_BYTES = 700, 4000
METHODS = (b"GET", b"POST", b"HEAD")
_REQUEST_SEEDS = tuple(case.raw for case in REQUESTS if len(case.raw) <= SEED_BYTES)
_RESPONSE_SEEDS = tuple(case.raw for case in RESPONSES if len(case.raw) <= SEED_BYTES)
#: Right ones, so often that damage finds what is nearly right.
_RIGHT_REQUESTS = tuple(
    case.raw for case in REQUESTS if not case.refused and len(case.raw) <= SEED_BYTES
)
_RIGHT_RESPONSES = tuple(
    case.raw for case in RESPONSES if case.answer is not None and len(case.raw) <= SEED_BYTES
)
_SNIPPETS = (
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b" ", b"\t", b":", b",", b";", b"\x00", b"\x0b"),
    *(b"0", b"00", b"1", b"5", b"-1", b"ffffffffffffffff", b"18446744073709551616", b"\xff", b"_"),
    *(b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n"),
    *(
        b"Host: b\r\n",
        b"Connection: close\r\n",
        b"Connection: Host\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(b"chunked", b"0\r\n\r\n", b"1\r\na\r\n", b"\r\n ", b"HTTP/1.1", b"HTTP/1.0", b"GET / "),
    *(b"GET /x HTTP/1.1\r\nHost: b\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
    *(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", b"101", b"304"),
)

#: Imported anew under atheris, which sees the branches only of what it imports itself.
_INSTRUMENTED = ("pbcluster.web", "pbcluster.testing.http_judge", "pbcluster.testing.http_memory")

Damage = Callable[[random.Random, bytes], bytes]


def _byte(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + bytes([dice.randrange(256)]) + data[at + dice.randrange(2) :]


def _flip(dice: random.Random, data: bytes) -> bytes:
    if not data:
        return data
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]


def _snippet(dice: random.Random, data: bytes) -> bytes:
    at = dice.randrange(len(data) + 1)
    return data[:at] + dice.choice(_SNIPPETS) + data[at + dice.choice((0, 0, 1, 2, 5)) :]


def _field(dice: random.Random, data: bytes) -> bytes:
    """A whole line, where lines begin."""
    lines = data.split(b"\r\n")
    snippet = dice.choice(_SNIPPETS).removesuffix(b"\r\n")
    lines.insert(dice.randrange(len(lines) + 1), snippet)
    return b"\r\n".join(lines)


def _lines(dice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    one, other = dice.randrange(len(lines)), dice.randrange(len(lines))
    what = dice.randrange(3)
    if what == 0:
        lines[one], lines[other] = lines[other], lines[one]
    elif what == 1:
        lines.insert(one, lines[other])
    else:
        del lines[one]
    return b"\r\n".join(lines)


def _line_end(dice: random.Random, data: bytes) -> bytes:
    lines = data.split(b"\r\n")
    at = dice.randrange(len(lines))
    ends = (b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b"\r\n ", b"")
    return b"\r\n".join(lines[:at]) + dice.choice(ends) + b"\r\n".join(lines[at:])


def _case(dice: random.Random, data: bytes) -> bytes:
    begin = dice.randrange(len(data) + 1)
    end = dice.randint(begin, len(data))
    return data[:begin] + data[begin:end].swapcase() + data[end:]


def _cut(dice: random.Random, data: bytes) -> bytes:
    begin = dice.randrange(len(data) + 1)
    end = min(len(data), begin + dice.choice((1, 2, 10, 100)))
    return data[:begin] + data[end:]


def _splice(dice: random.Random, data: bytes) -> bytes:
    other = dice.choice(_REQUEST_SEEDS + _RESPONSE_SEEDS)
    return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other) + 1) :]


def _append(dice: random.Random, data: bytes) -> bytes:
    return data + dice.choice(_REQUEST_SEEDS + _RESPONSE_SEEDS)


DAMAGES: tuple[Damage, ...] = (
    *(_byte, _flip, _snippet, _snippet, _field, _field, _lines, _line_end, _case, _cut),
    *(_splice, _append),
)


def damaged(dice: random.Random, right: tuple[bytes, ...], seeds: tuple[bytes, ...]) -> bytes:
    """A case, damaged up to four times."""
    data = dice.choice(right if dice.random() < 0.5 else seeds)
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3, 4))):
        data = dice.choice(DAMAGES)(dice, data)
    return data[:MAX_BYTES]


def one_request(dice: random.Random) -> str:
    """Judge a damaged request; what came of it. :raises Unsound: see ``http_judge``."""
    data = damaged(dice, _RIGHT_REQUESTS, _REQUEST_SEEDS)
    seen = judge_request(data, [dice.randrange(1 << 16) for _ in range(dice.randrange(4))])
    if not seen.answers:
        return "request unfinished"
    return f"request {seen.answers[-1].status}"


def one_response(dice: random.Random) -> str:
    """Judge a damaged response; what came of it. :raises Unsound: see ``http_judge``."""
    data = damaged(dice, _RIGHT_RESPONSES, _RESPONSE_SEEDS)
    status = judge_response(
        data,
        dice.choice(METHODS),
        reset=dice.random() < 0.3,
        places=[dice.randrange(1 << 16) for _ in range(dice.randrange(4))],
    )
    return f"response {status // 100}xx" if status else "response cut"


def fuzz(seed: int, *, rounds: int = 0, seconds: float = 0.0) -> Counter[str]:
    """Judge requests and responses by turns, ``rounds`` of each or for ``seconds``.

    :return: what came of them. :raises Unsound: the first that breaks a rule.
    """
    dice = random.Random(seed)
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    done = 0
    while done < rounds or time.monotonic() < until:
        seen[one_request(dice)] += 1
        seen[one_response(dice)] += 1
        done += 1
    return seen


def one_input(data: bytes, judge: Any = http_judge) -> None:
    """What atheris calls: the first byte chooses what the rest is, the second where it is cut.

    :param judge: the module ``http_judge``, or an instrumented copy of it.
    """
    if len(data) < 3:
        return
    kind, place, rest = data[0], data[1], data[2 : MAX_BYTES + 2]
    if kind % 2:
        judge.judge_response(rest, METHODS[kind // 2 % 3], reset=bool(kind & 64), places=[place])
    else:
        judge.judge_request(rest, [place])


def _by_atheris(seconds: float, seed: int) -> None:
    """Never returns: libFuzzer ends the process."""
    import atheris

    with tempfile.TemporaryDirectory() as corpus:
        for kind, seeds in ((0, _REQUEST_SEEDS), (1, _RESPONSE_SEEDS)):
            for number, data in enumerate(seeds):
                (Path(corpus) / f"{kind}-{number}").write_bytes(bytes([kind, 9]) + data)
        for name in [name for name in sys.modules if name.startswith(_INSTRUMENTED)]:
            del sys.modules[name]
        with atheris.instrument_imports(include=["pbcluster.web"]):
            judge = importlib.import_module("pbcluster.testing.http_judge")
        arguments = [sys.argv[0], f"-max_total_time={int(seconds)}", f"-seed={seed % (1 << 31)}"]
        arguments.append(f"-max_len={MAX_BYTES}")
        atheris.Setup([*arguments, corpus], lambda data: one_input(data, judge))
        atheris.Fuzz()


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=60.0, show_default=True, type=click.FloatRange(0, 86400))
@click.option("--seed", default=None, type=int, help="Of the damage; default: the time.")
@click.option("--engine", type=click.Choice(["auto", "atheris", "own"]), default="auto")
def main(seconds: float, seed: int | None, engine: str) -> None:
    """The command."""
    chosen = int(time.time()) if seed is None else seed
    found = importlib.util.find_spec("atheris") is not None
    if engine == "atheris" and not found:
        raise click.ClickException("atheris is not installed (pip install atheris)")
    click.echo(f"seed {chosen}, by {'atheris' if found and engine != 'own' else 'chance'}")
    if found and engine != "own":
        _by_atheris(seconds, chosen)
    try:
        seen = fuzz(chosen, seconds=seconds)
    except Unsound as error:
        raise click.ClickException(str(error)) from None
    told = ", ".join(f"{what}: {count}" for what, count in sorted(seen.items()))
    click.echo(f"{sum(seen.values())} inputs: {told}")


if __name__ == "__main__":
    main()
