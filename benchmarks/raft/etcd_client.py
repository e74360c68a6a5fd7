"""A client of etcd over its gRPC API, for one job; the few messages are written by hand.

Fields by number, from etcd's ``rpc.proto`` (3.4): all that is needed are varints and bytes.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import grpc
import grpc.aio
import uvloop

from benchmarks.raft.loops import Load, Witness

KEYS = 1000
VALUE = b"v" * 300
#: A member that does not answer by then is given up: short, so that a dead one costs little.
ATTEMPT_S = 0.1
CHANNEL = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
]


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def message(**fields: bytes | int) -> bytes:
    """``f1=b"key", f7=1``: bytes and varints by field number."""
    out = b""
    for name, value in fields.items():
        number = int(name[1:])
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        else:
            out += varint(number << 3) + varint(value)
    return out


def fields_of(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        tag = number()
        value: int | bytes = number()
        if tag & 7 == 2:
            assert isinstance(value, int)
            value, at = data[at : at + value], at + value
        yield tag >> 3, value


class Etcd:
    """Calls of one or several members."""

    def __init__(self, endpoints: list[str]) -> None:
        self._channels = [grpc.aio.insecure_channel(each, options=CHANNEL) for each in endpoints]
        self._at = 0
        self._calls = [
            {
                name: channel.unary_unary(f"/etcdserverpb.{name}")
                for name in ("KV/Put", "KV/Range", "Maintenance/Status", "Maintenance/MoveLeader")
            }
            for channel in self._channels
        ]

    async def call(self, name: str, request: bytes, timeout_s: float = 10.0) -> bytes:
        return bytes(await self._calls[self._at][name](request, timeout=timeout_s))

    async def put(self, key: bytes, value: bytes = VALUE) -> None:
        await self.call("KV/Put", message(f1=key, f2=value))

    async def put_somewhere(self, key: bytes) -> None:
        """A member that fails is followed by the next."""
        try:
            await self.call("KV/Put", message(f1=key, f2=VALUE), ATTEMPT_S)
        except grpc.RpcError:
            self._at = (self._at + 1) % len(self._channels)
            await asyncio.sleep(0.002)
            raise

    async def status(self) -> dict[int, int | bytes]:
        return dict(fields_of(await self.call("Maintenance/Status", b"", 1.0)))

    async def member_id(self) -> int:
        header = (await self.status())[1]
        assert isinstance(header, bytes)
        return int(dict(fields_of(header))[2])

    async def versions(self, prefix: bytes) -> dict[str, int]:
        """Every key that begins so, and how often it was put."""
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        answer = await self.call("KV/Range", message(f1=prefix, f2=end), 60.0)
        found = {}
        for number, value in fields_of(answer):
            if number == 2:
                row = dict(fields_of(bytes(value)))  # type: ignore[arg-type]
                found[bytes(row[1]).decode()] = int(row[4])  # type: ignore[arg-type]
        return found


def operation(etcd: Etcd, kind: str) -> Any:
    numbers = count()

    def key() -> bytes:
        return b"bench/%06d" % (next(numbers) % KEYS)

    if kind == "write":
        return lambda: etcd.put(key())
    serializable = int(kind == "lookup")
    return lambda: etcd.call("KV/Range", message(f1=key(), f7=serializable))


async def witness(etcd: Etcd, job: dict[str, Any]) -> dict[str, Any]:
    async def write(number: int, attempt: int) -> int:
        await etcd.put_somewhere(f"{job['prefix']}{number:08d}".encode())
        return number

    seen = Witness(write)
    loops = [asyncio.create_task(seen.loop()) for _ in range(job["loops"])]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    seen.stopped = True
    await asyncio.gather(*loops)
    return {"acknowledged": seen.acknowledged, "failures": seen.failures}


async def fill(etcd: Etcd, job: dict[str, Any]) -> dict[str, Any]:
    """``count`` different keys."""
    numbers = iter(range(job["count"]))

    async def loop() -> None:
        for number in numbers:
            await etcd.put(f"{job['prefix']}{number:08d}".encode())

    await asyncio.gather(*(loop() for _ in range(128)))
    return {}


async def run(job: dict[str, Any]) -> dict[str, Any]:  # noqa: PLR0911
    etcd = Etcd(job["endpoints"])
    match job["kind"]:
        case "status":
            try:
                return {"leader": (await etcd.status()).get(4, 0), "id": await etcd.member_id()}
            except grpc.RpcError:
                return {}
        case "move":
            at = time.monotonic()
            await etcd.call("Maintenance/MoveLeader", message(f1=job["to"]))
            return {"at": at}
        case "versions":
            return await etcd.versions(job["prefix"].encode())
        case "witness":
            return await witness(etcd, job)
        case "fill":
            return await fill(etcd, job)
    load = Load(operation(etcd, job["kind"]), job["seconds"])
    await asyncio.gather(*(load.loop() for _ in range(job["loops"])))
    return load.figures()


def main(job: dict[str, Any]) -> dict[str, Any]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(job))


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
