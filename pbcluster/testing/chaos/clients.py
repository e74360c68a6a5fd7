"""Clients of one tenant that write and read through the gateway, and note every request.

Each writer makes new rows with a text that depends on their key, pairs of rows in one transaction,
and lets a register of its own grow. A register with a write of unknown fate is left alone for ever:
that write may still be done, and would undo a later one. PocketBase chooses the ids of rows, so
that a write which was sent twice is there twice. Readers ask for what was acknowledged before they
ask.

Such clients wait for their answers: where all of them wait for one node, nobody shows that another
answers already. So beside them a new client comes every so often, writes one row and goes.

Blocking code in threads, with nothing of the platform's own HTTP.
"""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs

from pbcluster.testing.chaos.history import (
    CREATE,
    HALVES,
    LOOK,
    PAIR,
    READ,
    UPDATE,
    WHOLE,
    History,
    Operation,
    Row,
    value_of,
)
from pbcluster.testing.workload import PAGE, REQUEST_TIMEOUT_S, Client, Failed

COLLECTION = "chaos"
RECORDS = f"/api/collections/{COLLECTION}/records"
#: Of these the newest are read.
RECENT = 30
#: What a writer does, again and again.
TURNS = (CREATE, UPDATE, CREATE, PAIR, UPDATE)
#: A client whose request failed waits so long before its next.
AFTER_FAILURE_S = 0.05
#: New clients that wait for their only answer at a time; beyond, none come.
MAX_PASSING = 200
_POLL_S = 0.01


def prepare(client: Client) -> None:
    """Make the collection, and let transactions be. The client is the tenant's superuser.

    :raises Failed: refused.
    """
    rules = dict.fromkeys(("listRule", "viewRule", "createRule", "updateRule"), "")
    texts = [{"name": name, "type": "text"} for name in ("key", "half", "value")]
    fields = [*texts, {"name": "n", "type": "number"}]
    made = {"name": COLLECTION, "type": "base", "fields": fields, **rules}
    batch = {"batch": {"enabled": True, "maxRequests": 10, "timeout": 10, "maxBodySize": 0}}
    for method, path, body in (
        ("POST", "/api/collections", made),
        ("PATCH", "/api/settings", batch),
    ):
        status, answer = client.ask(method, path, body)
        if status != 200:
            raise Failed(f"{method} {path} answered {status}: {answer}")


@attrs.define
class Known:
    """What the clients of one tenant know to be there. Safe from several threads.

    :ivar rows: id, key and half of the newest acknowledged rows. :ivar registers: names that were
        acknowledged once.
    """

    rows: deque[tuple[str, str, str]] = attrs.field(factory=lambda: deque(maxlen=RECENT))
    registers: deque[str] = attrs.field(factory=lambda: deque(maxlen=RECENT))


@attrs.define
class TenantClients:
    """Writers and readers of one tenant.

    :ivar tenant: its name. :ivar prefix: at most 7 characters of [a-z0-9], another in each round.
    :ivar pause_s: between an answer and the next request of a client.
    :ivar passing_every_s: so often a client comes that writes once; 0: none does.
    """

    gateway: str
    host: str
    tenant: str
    prefix: str
    history: History
    writers: int = 2
    readers: int = 2
    pause_s: float = 0.02
    passing_every_s: float = 0.25
    known: Known = attrs.field(factory=Known)
    acks: int = 0
    good_reads: int = 0
    _stop: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)
    _passing: list[threading.Thread] = attrs.field(factory=list)

    def start(self) -> None:
        """Start all clients."""
        for target, count in ((self._write, self.writers), (self._read, self.readers)):
            for number in range(count):
                self._threads.append(_thread(target, number))
        if self.passing_every_s:
            self._threads.append(_thread(self._let_pass))

    def stop(self) -> None:
        """Let every client finish its request and end: what is read afterwards shows all of it."""
        self.end_soon()
        for thread in self._threads:
            thread.join(REQUEST_TIMEOUT_S + 5)
        # Only now does no further client come by.
        for thread in self._passing:
            thread.join(REQUEST_TIMEOUT_S + 5)

    def end_soon(self) -> None:
        """Begin no further request."""
        self._stop.set()

    def goal(self, more: int) -> tuple[int, int]:
        """How many good writes and reads there will be after so many more."""
        return self.acks + more, self.good_reads + more

    def wait_for(self, goal: tuple[int, int], until_s: float) -> None:
        """Return once there are so many good answers.

        :param until_s: of the monotonic clock. :raises Failed: not until then.
        """
        while self.acks < goal[0] or self.good_reads < goal[1]:
            if time.monotonic() > until_s:
                last = [o for o in self.history.operations[-50:] if o.tenant == self.tenant]
                told = [(each.kind, each.status, each.detail) for each in last[-5:]]
                raise Failed(f"{self.tenant} has too few good answers; the last: {told}")
            self._stop.wait(_POLL_S)

    # -- writing ----------------------------------------------------------------------------------

    def _write(self, writer: int) -> None:
        client = Client(self.gateway, self.host)
        number, generation, n = 0, 0, 0
        while not self._stop.is_set():
            number += 1
            kind = TURNS[number % len(TURNS)]
            if kind == UPDATE:
                register = f"{self.prefix}{writer:02}{generation:0{13 - len(self.prefix)}}"
                n += 1
                done = self._update(client, register, n, f"writer {writer}")
                if not done.acked:
                    generation, n = generation + 1, 0
            else:
                key = f"{self.prefix}w{writer}n{number}"
                done = self._insert(client, kind, key, f"writer {writer}")
            self._noted(done)
        client.close()

    def _let_pass(self) -> None:
        number = 0
        while not self._stop.wait(self.passing_every_s):
            self._passing = [each for each in self._passing if each.is_alive()]
            if len(self._passing) < MAX_PASSING:
                number += 1
                self._passing.append(_thread(self._write_once, number))

    def _write_once(self, number: int) -> None:
        client = Client(self.gateway, self.host)
        self._noted(self._insert(client, CREATE, f"{self.prefix}p{number}", "a passer-by"))
        client.close()

    def _update(self, client: Client, register: str, n: int, who: str) -> Operation:
        row: dict[str, Any] = {"n": n}
        how = ("PATCH", f"{RECORDS}/{register}")
        if n == 1:
            row |= {"id": register, "key": register}
            how = ("POST", RECORDS)
        begun = time.monotonic()
        status, _, detail = asked(client, *how, row)
        done = self._operation(UPDATE, register, begun, status, detail, client, who, n=n)
        if n == 1 and done.acked:
            self.known.registers.append(register)
        return done

    def _insert(self, client: Client, kind: str, key: str, who: str) -> Operation:
        halves = HALVES if kind == PAIR else (WHOLE,)
        rows = [{"key": key, "half": half, "value": value_of(key, half)} for half in halves]
        begun = time.monotonic()
        if kind == PAIR:
            wanted = [{"method": "POST", "url": RECORDS, "body": row} for row in rows]
            status, answer, detail = asked(client, "POST", "/api/batch", {"requests": wanted})
            ids = [part["body"]["id"] for part in answer] if status == 200 else []
        else:
            status, answer, detail = asked(client, "POST", RECORDS, rows[0])
            ids = [answer["id"]] if status == 200 else []
        done = self._operation(kind, key, begun, status, detail, client, who)
        self.known.rows.extend((row, key, half) for row, half in zip(ids, halves, strict=False))
        return done

    def _operation(
        self,
        kind: str,
        key: str,
        begun: float,
        status: int,
        detail: str,
        client: Client,
        who: str,
        n: int = 0,
    ) -> Operation:
        return Operation(
            tenant=self.tenant,
            kind=kind,
            key=key,
            begun_s=begun,
            ended_s=time.monotonic(),
            status=status,
            n=n,
            durability=client.durability if status == 200 else "",
            client=who,
            detail=detail,
        )

    # -- reading ----------------------------------------------------------------------------------

    def _read(self, reader: int) -> None:
        client = Client(self.gateway, self.host)
        dice = random.Random(f"{self.prefix} {reader}")
        while not self._stop.is_set():
            done = read_known(client, self.known, dice, self.tenant, f"reader {reader}")
            if done is None:
                self._stop.wait(AFTER_FAILURE_S)
            else:
                self._noted(done)
        client.close()

    def _noted(self, done: Operation) -> None:
        self.history.operations.append(done)
        if done.good:
            # Not exact with several threads at once, and need not be.
            self.acks += done.acked
            self.good_reads += not done.acked
        self._stop.wait(self.pause_s if done.good else max(self.pause_s, AFTER_FAILURE_S))


def _thread(target: Any, *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def asked(
    client: Client, method: str, path: str, body: Any = None, more: dict[str, str] | None = None
) -> tuple[int, Any, str]:
    """One request. :returns: status (0: no answer), decoded answer, and why it is not good."""
    try:
        status, answer = client.ask(method, path, body, more)
    except (OSError, http.client.HTTPException) as error:
        return 0, None, f"{type(error).__name__}: {error}"
    return status, answer, "" if status == 200 else str(answer)[:200]


def read_known(
    client: Client,
    known: Known,
    dice: random.Random,
    tenant: str,
    who: str,
    node: str = "",
    mark: Any = None,
) -> Operation | None:
    """Read a row or a register that was acknowledged before; None: there is none yet.

    :param node: the node that is asked, empty: the gateway. :param mark: makes the headers of a
        request for a path.
    """
    rows, registers = list(known.rows), list(known.registers)
    if not rows or not registers:
        return None
    look = dice.random() < 0.5
    row, key, half = dice.choice(rows[-10:]) if look else ("", dice.choice(registers[-6:]), "")
    path = f"{RECORDS}/{row or key}"
    begun = time.monotonic()
    status, answer, detail = asked(client, "GET", path, None, mark(path) if mark else None)
    read = answer if status == 200 and isinstance(answer, dict) else {}
    right = not read or not look or read.get("value") == value_of(key, half)
    return Operation(
        tenant=tenant,
        kind=LOOK if look else READ,
        key=key,
        begun_s=begun,
        ended_s=time.monotonic(),
        status=status,
        n=int(read.get("n", 0)),
        found=status != 404,
        right=right,
        client=who if not node else f"a probe of {node}",
        node=node,
        detail=detail or ("" if right else str(answer)[:200]),
    )


def read_all(client: Client) -> list[Row]:
    """Every row of the tenant. :raises Failed: a page was refused."""
    rows: list[Row] = []
    page = 1
    while True:
        query = f"perPage={PAGE}&page={page}&sort=id&skipTotal=1"
        status, answer, detail = asked(client, "GET", f"{RECORDS}?{query}")
        if status != 200:
            raise Failed(f"reading page {page} answered {status} {detail}")
        rows += rows_of([(i["key"], i["half"], i["value"], i["n"]) for i in answer["items"]])
        if len(answer["items"]) < PAGE:
            return rows
        page += 1


def rows_of(found: Sequence[tuple[str, str, str, Any]]) -> list[Row]:
    """Rows from (key, half, value, n)."""
    return [Row(key, half, value, int(n or 0)) for key, half, value, n in found]
