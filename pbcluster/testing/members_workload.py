"""Clients of the control plane's admin API that note every operation for the judge.

Writers create tenants, each at a member chosen by the dice. A creation that got no clear answer is
repeated with the same idempotency key, at other members, until somebody acknowledges it; some of
the acknowledged ones are repeated too: they must give the same tenant. Readers ask any member for a
tenant that was acknowledged before they ask, and for its route under the acknowledged epoch, as a
gateway does. :mod:`pbcluster.testing.histories` judges.
"""

from __future__ import annotations

import http.client
import json
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from pbcluster.cli.layout import LOOPBACK
from pbcluster.testing.histories import (
    CREATE,
    LOOKUP,
    MISSING,
    OK,
    READ,
    REFUSED,
    UNKNOWN,
    Operation,
)
from pbcluster.testing.lookups import Lookups
from pbcluster.testing.workload import Failed

#: Longer than a member waits for a commit.
TIMEOUT_S = 15.0
#: A client without an answer asks again so soon: the resolution of what is measured.
RETRY_S = 0.01
#: So many of the acknowledged creations are repeated.
REPEATED_SHARE = 0.1
_STEP_S = 0.005


class Asking:
    """A keep-alive connection to each member, for one thread."""

    def __init__(self, ports: dict[str, int], token: str) -> None:
        """:param ports: member → port of its admin API."""
        self._ports = ports
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._open: dict[str, http.client.HTTPConnection] = {}

    def ask(
        self, member: str, method: str, path: str, body: Any = None, key: str = ""
    ) -> tuple[int, Any]:
        """:returns: status and JSON; status 0: no answer, so nobody knows."""
        connection = self._open.get(member)
        if connection is None:
            port = self._ports[member]
            connection = http.client.HTTPConnection(LOOPBACK, port, timeout=TIMEOUT_S)
            self._open[member] = connection
        headers = self._headers | ({"Idempotency-Key": key} if key else {})
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, f"/api/cp{path}", data, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            del self._open[member]
            return 0, None

    def close(self) -> None:
        """End the connections."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()


@attrs.define
class MembersWorkload:
    """Writers and readers.

    :ivar ports: member → port of its admin API.
    :ivar lookups: makes the sockets of one reader.
    :ivar pause_s: of a client after each answer.
    :ivar history: every operation, in the order of the answers. Appending is safe from threads.
    :ivar refusals: answers that no creation or read should get.
    """

    ports: dict[str, int]
    token: str = attrs.field(repr=False)
    lookups: Callable[[], Lookups]
    writers: int = 4
    readers: int = 2
    pause_s: float = 0.0
    seed: int = 0
    prefix: str = "t"
    history: list[Operation] = attrs.field(factory=list)
    refusals: list[str] = attrs.field(factory=list)
    acked: int = 0
    #: What readers ask for: name and epoch of the newest acknowledgement.
    _latest: tuple[str, int] = ("", 0)
    _ending: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    @contextmanager
    def running(self) -> Iterator[list[Operation]]:
        """Clients run while the ``with`` block does; then each ends its operation."""
        for number in range(self.writers):
            self._spawn(self._write, number)
        for number in range(self.readers):
            self._spawn(self._read, number)
        try:
            yield self.history
        finally:
            self._ending.set()
            for thread in self._threads:
                thread.join(TIMEOUT_S + 5)

    def wait_for_acks(self, count: int, timeout_s: float = 60.0) -> None:
        """Return once ``count`` more creations are acknowledged. :raises Failed: not in time."""
        goal, until = self.acked + count, time.monotonic() + timeout_s
        while self.acked < goal:
            if time.monotonic() > until:
                last = [(o.kind, o.outcome, o.member) for o in self.history[-5:]]
                told = f"last operations {last}, refusals {self.refusals[-3:]}"
                raise Failed(f"no {count} acknowledgements within {timeout_s:.0f} s; {told}")
            self._ending.wait(_STEP_S)

    def _spawn(self, target: Any, number: int) -> None:
        thread = threading.Thread(target=target, args=(number,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _write(self, number: int) -> None:
        asking = Asking(self.ports, self.token)
        dice = random.Random(f"{self.seed}/writer/{number}")
        count = 0
        while not self._ending.is_set():
            name, key = f"{self.prefix}{number}-{count}", secrets.token_hex(8)
            count += 1
            if self._create(asking, dice, name, key) and dice.random() < REPEATED_SHARE:
                self._create(asking, dice, name, key)
            self._ending.wait(self.pause_s)
        asking.close()

    def _create(self, asking: Asking, dice: random.Random, name: str, key: str) -> bool:
        """Create it, whatever it takes. :returns: whether it was acknowledged."""
        until = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            member = dice.choice(list(self.ports))
            began = time.monotonic()
            status, answer = asking.ask(member, "POST", "/tenants", {"name": name}, key)
            ended = time.monotonic()
            made: dict[str, Any] = answer if status in (201, 202) else {"id": "", "epoch": 0}
            outcome = OK if made["id"] else UNKNOWN if status == 0 or status >= 500 else REFUSED
            self.history.append(
                Operation(
                    CREATE, name, began, ended, outcome, made["id"], key, member, made["epoch"]
                )
            )
            if outcome == OK:
                self.acked += 1
                self._latest = (name, made["epoch"])
                return True
            if outcome == REFUSED:
                self.refusals.append(f"creating {name} at {member}: {status} {answer}")
                return False
            if self._ending.wait(RETRY_S):
                return False
        return False

    def _read(self, number: int) -> None:
        asking, lookups = Asking(self.ports, self.token), self.lookups()
        dice = random.Random(f"{self.seed}/reader/{number}")
        while not self._ending.is_set():
            name, epoch = self._latest
            if name:
                self._look_up(lookups, dice.choice(list(self.ports)), name, epoch)
                self._read_once(asking, dice.choice(list(self.ports)), name)
            self._ending.wait(max(self.pause_s, RETRY_S))
        asking.close()
        lookups.close()

    def _look_up(self, lookups: Lookups, member: str, name: str, epoch: int) -> None:
        began = time.monotonic()
        outcome, found = lookups.ask(member, name, epoch)
        ended = time.monotonic()
        self.history.append(
            Operation(
                LOOKUP, name, began, ended, outcome, member=member, epoch=found, min_epoch=epoch
            )
        )

    def _read_once(self, asking: Asking, member: str, name: str) -> None:
        began = time.monotonic()
        status, answer = asking.ask(member, "GET", f"/tenants/{name}")
        ended = time.monotonic()
        outcome = {200: OK, 404: MISSING}.get(status, UNKNOWN)
        found: dict[str, Any] = answer if status == 200 else {"id": "", "epoch": 0}
        self.history.append(
            Operation(READ, name, began, ended, outcome, found["id"], "", member, found["epoch"])
        )
        if outcome == UNKNOWN and 0 < status < 500:
            self.refusals.append(f"reading {name} at {member}: {status} {answer}")


def all_tenants(items: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(name, id) of the admin API's list, for the judge."""
    return [(str(item["name"]), str(item["id"])) for item in items]
