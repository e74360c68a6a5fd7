"""One PySyncObj member with a journal; obeys jobs, one line of JSON each, on its standard input."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

KEYS = 1000
VALUE = "v" * 300
WARM_UP_S = 0.4


class Store(SyncObj):
    def __init__(self, own: str, others: list[str], file: str) -> None:
        # Compaction (a fork) needs a dump file; without one the journal only grows.
        conf = SyncObjConf(
            journalFile=f"{file}.journal",
            fullDumpFile=f"{file}.dump",
            appendEntriesPeriod=0.05,
            raftMinTimeout=0.25,
            raftMaxTimeout=0.5,
            autoTickPeriod=0.005,
            # Batches leave once a heartbeat only.
            appendEntriesUseBatch=False,
            connectionRetryTime=0.1,
        )
        super().__init__(own, others, conf)
        self.rows: dict[int, str] = {}

    @replicated
    def put(self, key: int, value: str) -> None:
        self.rows[key] = value


def load(store: Store, loops: int, seconds: float) -> dict[str, Any]:
    """Every callback begins the next write, in PySyncObj's own thread."""
    begin = time.perf_counter() + WARM_UP_S
    until = begin + seconds
    took: list[float] = []
    errors, left, ended = [0], [loops], threading.Event()

    def write() -> None:
        began = time.perf_counter()
        if began >= until:
            left[0] -= 1
            if not left[0]:
                ended.set()
            return

        def done(_result: object, error: int) -> None:
            if error != FAIL_REASON.SUCCESS:
                errors[0] += 1
            elif began >= begin:
                took.append(time.perf_counter() - began)
            write()

        store.put(len(took) % KEYS, VALUE, callback=done)

    for _ in range(loops):
        write()
    ended.wait(seconds + 30)
    took.sort()
    return {
        "rate": len(took) / seconds,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[len(took) * 99 // 100] * 1000,
        "errors": errors[0],
    }


def main() -> None:
    own, others, file = sys.argv[1:4]
    store = Store(own, others.split(","), file)
    for line in sys.stdin:
        job = json.loads(line)
        if job["kind"] == "leads":
            leader = store._getLeader()
            print(json.dumps(str(leader) == own), flush=True)
        else:
            print(json.dumps(load(store, job["loops"], job["seconds"])), flush=True)


if __name__ == "__main__":
    main()
