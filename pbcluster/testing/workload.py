"""Clients that write and read through a gateway, and a checker of what they were promised.

Each writer creates records with ids of its own, so that "acknowledged", "refused" and "nobody
knows" (the connection broke, so the record may or may not exist) are told apart for every single
record. Each reader asks for a record that was acknowledged *before* the reader asked: an answer
without it is a stale read. :func:`check` then reads everything back.

Blocking code in threads, with nothing of the platform's own HTTP: a client that shared a fault with
the server would not see it. It judges no speed; :class:`Journal` keeps the times for those who do.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import attrs

#: The collection that :func:`prepare` makes and everything here uses.
COLLECTION = "journal"
#: A client waits this long for one answer: longer than the gateway holds a request.
REQUEST_TIMEOUT_S = 45.0
#: Records read back at once (PocketBase's own limit is 1,000).
PAGE = 500


class Failed(Exception):
    """The platform answered something else than it should have."""


@attrs.define
class Client:
    """One HTTP/1.1 keep-alive connection to a tenant through the gateway.

    :ivar gateway: the gateway's URL. :ivar host: the tenant's host name.
    :ivar durability: what the platform said of the last answer: ``s3``, ``async`` or ``local`` for
        an acknowledged write, else empty.
    """

    gateway: str
    host: str
    token: str = ""
    durability: str = ""
    _connection: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: Any = None, more: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """One request. Any failure of the connection closes it and is raised as OSError or
        ``http.client.HTTPException``: the request may have been carried out.

        :param more: further headers.
        :returns: status and decoded JSON (None if there was no JSON).
        """
        if self._connection is None:
            where = urlsplit(self.gateway)
            self._connection = http.client.HTTPConnection(
                where.hostname or "", where.port, timeout=REQUEST_TIMEOUT_S
            )
        headers = {"Host": self.host, "Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = self.token
        headers |= more or {}
        data = None if body is None else json.dumps(body).encode()
        try:
            self._connection.request(method, path, data, headers)
            answer = self._connection.getresponse()
            content = answer.read()
        except BaseException:
            self.close()
            raise
        self.durability = answer.headers.get("X-PBCluster-Durability", "")
        if answer.will_close:
            self.close()
        try:
            return answer.status, json.loads(content)
        except ValueError:
            return answer.status, None

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def sign_in(self, email: str, password: str) -> None:
        """Become the tenant's superuser. :raises Failed: refused."""
        status, answer = self.ask(
            "POST",
            "/api/collections/_superusers/auth-with-password",
            {"identity": email, "password": password},
        )
        if status != 200:
            raise Failed(f"sign-in answered {status}: {answer}")
        self.token = answer["token"]


def prepare(client: Client) -> None:
    """Make the collection, readable and writable by anybody. :raises Failed: refused."""
    status, answer = client.ask(
        "POST",
        "/api/collections",
        {
            "name": COLLECTION,
            "type": "base",
            "listRule": "",
            "viewRule": "",
            "createRule": "",
            "fields": [{"name": "n", "type": "number"}, {"name": "value", "type": "text"}],
        },
    )
    if status != 200:
        raise Failed(f"creating the collection answered {status}: {answer}")


@attrs.define
class Event:
    """One request of one client.

    :ivar begun: seconds of ``time.monotonic()``. :ivar status: 0 if the connection failed.
    """

    kind: str
    record: str
    begun: float
    ended: float
    status: int
    detail: str = ""


@attrs.define
class Journal:
    """What all clients saw. Appending to its lists is safe from several threads."""

    events: list[Event] = attrs.field(factory=list)
    #: id → value of every acknowledged record, in the order of acknowledgement.
    acked: dict[str, str] = attrs.field(factory=dict)
    #: The newest acknowledged record and its value.
    latest: tuple[str, str] | None = None
    #: id → value of records that may or may not exist.
    unknown: dict[str, str] = attrs.field(factory=dict)
    #: Records that were acknowledged before a read began which did not find them as written.
    stale: list[str] = attrs.field(factory=list)

    def failures(self) -> list[Event]:
        """Every request that was not answered as it should be."""
        return [event for event in self.events if event.status != 200]

    def longest_gap(self, since: float, kind: str = "write") -> float:
        """The longest time without a good answer, in seconds: what a user would have waited.

        :param since: seconds of ``time.monotonic()``; the first gap begins here.
        """
        ends = sorted(e.ended for e in self.events if e.kind == kind and e.status == 200)
        ends = [since, *(end for end in ends if end > since)]
        return max((after - before for before, after in pairwise(ends)), default=float("inf"))


@attrs.define
class Workload:
    """Writers and readers of one tenant.

    :ivar name: at most 4 characters of [a-z0-9]; makes the ids of this workload its own.
    """

    gateway: str
    host: str
    name: str
    writers: int = 1
    readers: int = 0
    pause_s: float = 0.0
    journal: Journal = attrs.field(factory=Journal)
    _stop: threading.Event = attrs.field(factory=threading.Event)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    @contextmanager
    def running(self) -> Iterator[Journal]:
        """Clients run while the ``with`` block does; at its end each finishes its request."""
        self.start()
        try:
            yield self.journal
        finally:
            self.stop()

    def start(self) -> None:
        """Start all clients."""
        for number in range(self.writers):
            self._spawn(self._write, number)
        for number in range(self.readers):
            self._spawn(self._read, number)

    def stop(self) -> None:
        """Let every client finish its request and end."""
        self._stop.set()
        for thread in self._threads:
            thread.join(REQUEST_TIMEOUT_S + 5)

    def wait_for_acks(self, count: int, timeout_s: float = 60.0) -> None:
        """Return once ``count`` more records are acknowledged. :raises Failed: not in time."""
        goal = len(self.journal.acked) + count
        deadline = time.monotonic() + timeout_s
        while len(self.journal.acked) < goal:
            if time.monotonic() > deadline:
                seen = [(e.status, e.detail) for e in self.journal.events[-5:]]
                raise Failed(f"no {count} acknowledgements within {timeout_s} s; last: {seen}")
            self._stop.wait(0.005)

    def _spawn(self, target: Any, number: int) -> None:
        thread = threading.Thread(target=target, args=(number,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _write(self, writer: int) -> None:
        client = Client(self.gateway, self.host)
        number = 0
        while not self._stop.is_set():
            number += 1
            # PocketBase's ids have 15 characters of [a-z0-9].
            record = f"{self.name}{writer:03}{number:0{12 - len(self.name)}}"
            value = f"value of {record}"
            row = {"id": record, "n": number, "value": value}
            status, _ = self._timed(
                "write", client, record, "POST", f"/api/collections/{COLLECTION}/records", row
            )
            if status == 200:
                self.journal.acked[record] = value
                self.journal.latest = (record, value)
            elif status == 0 or status >= 500:
                self.journal.unknown[record] = value
            self._stop.wait(self.pause_s if status == 200 else 0.05)
        client.close()

    def _read(self, reader: int) -> None:
        client = Client(self.gateway, self.host)
        while not self._stop.is_set():
            if self.journal.latest is None:
                self._stop.wait(0.02)
                continue
            record, value = self.journal.latest
            path = f"/api/collections/{COLLECTION}/records/{record}"
            status, answer = self._timed("read", client, record, "GET", path)
            found = isinstance(answer, dict) and answer.get("value") == value
            if status == 404 or (status == 200 and not found):
                self.journal.stale.append(f"{record}: {status} {answer}")
            self._stop.wait(self.pause_s)
        client.close()

    def _timed(
        self, kind: str, client: Client, record: str, method: str, path: str, body: Any = None
    ) -> tuple[int, Any]:
        begun = time.monotonic()
        try:
            status, answer = client.ask(method, path, body)
            detail = "" if status == 200 else str(answer)[:200]
        except (OSError, http.client.HTTPException) as error:
            status, answer, detail = 0, None, f"{type(error).__name__}: {error}"
        ended = time.monotonic()
        self.journal.events.append(Event(kind, record, begun, ended, status, detail))
        return status, answer


@attrs.frozen
class Verdict:
    """What :func:`check` found. All three lists must be empty."""

    rows: int
    lost: list[str]
    changed: list[str]
    invented: list[str]

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.changed or self.invented)


def read_all(client: Client) -> dict[str, str]:
    """Every record of the collection, id → value. :raises Failed: a page was refused, or an id
    stood on two pages."""
    rows: dict[str, str] = {}
    page = 1
    while True:
        status, answer = client.ask(
            "GET",
            f"/api/collections/{COLLECTION}/records?perPage={PAGE}&page={page}&sort=id&skipTotal=1",
        )
        if status != 200:
            raise Failed(f"reading page {page} answered {status}: {answer}")
        for row in answer["items"]:
            if row["id"] in rows:
                raise Failed(f"record {row['id']} is there twice")
            rows[row["id"]] = row["value"]
        if len(answer["items"]) < PAGE:
            return rows
        page += 1


def check(client: Client, *journals: Journal) -> Verdict:
    """Compare everything that is there with everything that was acknowledged.

    Lost: acknowledged and not there. Changed: there with another value. Invented: there, but
    neither acknowledged nor of unknown fate (a record whose creation was refused).
    """
    rows = read_all(client)
    acked = {k: v for journal in journals for k, v in journal.acked.items()}
    unknown = {k: v for journal in journals for k, v in journal.unknown.items()}
    return Verdict(
        rows=len(rows),
        lost=[record for record in acked if record not in rows],
        changed=[r for r, v in acked.items() if r in rows and rows[r] != v],
        invented=[record for record in rows if record not in acked and record not in unknown],
    )
