"""One tenant of a real cluster, what it was asked to keep, and whether it kept it.

A burst of use writes rows, reads them, uploads files and deletes some. What was acknowledged is
remembered, what got no clear answer is, too: a row or file of unknown fate may exist or not, but
never as something else. :meth:`UsedTenant.faults` then reads everything back.

Blocking. One burst of a tenant at a time; :meth:`UsedTenant.acked` may be read by any thread.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from itertools import islice, product
from string import ascii_lowercase, digits
from typing import Any

import attrs

from pbcluster.cli.http import Answer, Unreachable
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import (
    PAGE,
    REQUEST_TIMEOUT_S,
    Client,
    Failed,
    Journal,
    Verdict,
    Workload,
    check,
    prepare,
)

EMAIL = "soak@example.com"
PASSWORD = "a password for the soak"
FILES = "docs"
RECORDS = f"/api/collections/{FILES}/records"
WRITE_PAUSE_S = 0.05
#: From a byte to what PocketBase sends to S3 in parts of its own.
FILE_SIZES = (1, 700, 20_000, 300_000, 2_000_000)
#: Of all files; the smaller ones are uploaded more often.
FILE_WEIGHTS = (4, 8, 8, 3, 1)
#: A burst on a slow machine makes this many file operations at most.
MAX_FILE_OPERATIONS = 6
_LETTERS = digits + ascii_lowercase


def content_of(record: str, size: int) -> bytes:
    """What the file of a record holds: made again when it is compared, not kept."""
    return random.Random(record).randbytes(size)


@attrs.define
class File:
    """One uploaded file.

    :ivar name: what PocketBase called it; empty while no upload was acknowledged.
    :ivar fate: ``kept``, ``deleted``, or ``unknown`` when a request got no clear answer.
    """

    record: str
    size: int
    name: str = ""
    fate: str = "unknown"


@attrs.define
class Burst:
    """What one burst did. :ivar failed: requests without the answer that they should have."""

    rows: int = 0
    uploads: int = 0
    deletions: int = 0
    failed: list[str] = attrs.field(factory=list)


class UsedTenant:
    """See the module.

    :ivar name: its name. :ivar tenant_id: its id. :ivar files: every upload that was tried.
    """

    def __init__(self, cluster: RealCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.tenant_id = ""
        self.journal = Journal()
        self.files: list[File] = []
        self._names = ("".join(each) for each in product(_LETTERS, repeat=4))

    def create(self) -> None:
        """Make the tenant and its collections. :raises Failed: refused."""
        self.tenant_id = self.cluster.create_tenant(
            # A row that is acknowledged on one disk would not have to be in S3.
            *(self.name, EMAIL, PASSWORD),
            onS3Outage="reject",
        )["id"]
        client = self.client()
        client.sign_in(EMAIL, PASSWORD)
        prepare(client)
        anybody = dict.fromkeys(("listRule", "viewRule", "createRule", "deleteRule"), "")
        field = {"name": "f", "type": "file", "maxSize": max(FILE_SIZES)}
        made = {"name": FILES, "type": "base", "fields": [field], **anybody}
        status, answer = client.ask("POST", "/api/collections", made)
        client.close()
        if status != 200:
            raise Failed(f"creating the collection answered {status}: {answer}")

    def client(self) -> Client:
        """A connection of its own, nobody signed in."""
        return Client(self.cluster.gateway_url, self.cluster.host(self.name))

    def acked(self) -> dict[str, str]:
        """id → value of every row acknowledged by now."""
        return dict(self.journal.acked)

    # -- use --------------------------------------------------------------------------------------

    def burst(self, dice: random.Random, seconds: float, *, files: bool = True) -> Burst:
        """Use it for a while: one to three writers, a reader, and files beside them.

        :param files: whether files are uploaded and deleted.
        """
        (name,) = islice(self._names, 1)
        done, before = Burst(), len(self.journal.acked)
        workload = Workload(
            self.cluster.gateway_url,
            self.cluster.host(self.name),
            name,
            writers=dice.randint(1, 3),
            readers=1,
            pause_s=WRITE_PAUSE_S,
            journal=self.journal,
        )
        until = time.monotonic() + seconds
        with workload.running():
            for number in range(dice.randint(0, MAX_FILE_OPERATIONS) if files else 0):
                if time.monotonic() >= until:
                    break
                kept = [file for file in self.files if file.fate == "kept"]
                if kept and dice.random() < 0.4:
                    self._delete(dice.choice(kept), done)
                else:
                    size = dice.choices(FILE_SIZES, FILE_WEIGHTS)[0]
                    self._upload(File(f"{name}f{number:010}", size), done)
            time.sleep(max(0.0, until - time.monotonic()))
        done.rows = len(self.journal.acked) - before
        done.failed += [f"{e.kind} {e.status} {e.detail}" for e in self.journal.failures()]
        self.journal.events.clear()  # hours of them would fill the memory
        return done

    def _upload(self, file: File, done: Burst) -> None:
        self.files.append(file)
        head = (
            f'--b\r\nContent-Disposition: form-data; name="id"\r\n\r\n{file.record}\r\n'
            '--b\r\nContent-Disposition: form-data; name="f"; filename="soak.bin"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + content_of(file.record, file.size) + b"\r\n--b--\r\n"
        answer = self._ask("POST", RECORDS, body, "multipart/form-data; boundary=b")
        if answer is not None and answer.status == 200:
            file.name, file.fate = json.loads(answer.body)["f"], "kept"
            done.uploads += 1
        else:
            done.failed.append(f"upload {_shown(answer)}")

    def _delete(self, file: File, done: Burst) -> None:
        # From now on it may be gone, whatever is heard of it.
        file.fate = "unknown"
        answer = self._ask("DELETE", f"{RECORDS}/{file.record}")
        if answer is not None and answer.status == 204:
            file.fate = "deleted"
            done.deletions += 1
        else:
            done.failed.append(f"deletion {_shown(answer)}")

    def _ask(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> Any:
        """One request. :returns: its answer, None if there was none: it may have been done."""
        headers = {"Content-Type": kind} if kind else {}
        try:
            return self.cluster.ask_tenant(
                self.name, method, path, headers=headers, body=body, timeout_s=REQUEST_TIMEOUT_S
            )
        except Unreachable:
            return None

    # -- judgement --------------------------------------------------------------------------------

    def faults(self) -> list[str]:
        """Everything that was promised and is not so; no burst may be under way."""
        client = self.client()
        try:
            found = _row_faults(check(client, self.journal))
            found += [f"stale read: {line}" for line in self.journal.stale]
            rows = file_rows(client)
        except (OSError, Failed) as error:
            found, rows = [f"cannot be read back: {type(error).__name__}: {error}"], None
        finally:
            client.close()
        if rows is not None:
            found += _invented(self.files, rows)
            found += [fault for file in self.files for fault in file_faults(file, rows, self._read)]
        return [f"{self.name}: {each}" for each in found]

    def _read(self, record: str, name: str) -> tuple[int, bytes]:
        """A file's status and content; 0 if nothing answered."""
        answer = self._ask("GET", f"/api/files/{FILES}/{record}/{name}")
        return (0, b"") if answer is None else (answer.status, answer.body)


def file_rows(client: Client) -> dict[str, str]:
    """Record → name of its file, of every row. :raises Failed: a page was refused."""
    rows: dict[str, str] = {}
    page = 1
    while True:
        path = f"{RECORDS}?perPage={PAGE}&page={page}&sort=id&skipTotal=1"
        status, answer = client.ask("GET", path)
        if status != 200:
            raise Failed(f"reading page {page} of the files answered {status}: {answer}")
        rows |= {row["id"]: row["f"] for row in answer["items"]}
        if len(answer["items"]) < PAGE:
            return rows
        page += 1


def file_faults(
    file: File, rows: dict[str, str], read: Callable[[str, str], tuple[int, bytes]]
) -> list[str]:
    """What is wrong with one file.

    Kept: its row is there, and its content byte for byte. Deleted: neither. Unknown: a row that is
    there after an unclear deletion still has its file; after an unclear upload the file is whole or
    not served.

    :param rows: what :func:`file_rows` found. :param read: status and content of a file.
    """
    there = file.record in rows
    if file.fate == "deleted" and there:
        return [f"the row of the deleted file {file.record} is there"]
    if file.fate == "kept" and rows.get(file.record) != file.name:
        return [f"the row of the file {file.record} is {'another' if there else 'lost'}"]
    name = file.name or rows.get(file.record, "")
    if not name:
        return []
    status, content = read(file.record, name)
    if status == 200 and there:
        whole = content == content_of(file.record, file.size)
        return [] if whole else [f"{len(content)} bytes of {file.record} are not its {file.size}"]
    # Nothing was promised of an upload without a clear answer.
    allowed = status == 404 if not there else not file.name
    return [] if allowed else [f"the file {file.record} is answered {status}, {file.fate}"]


def _row_faults(verdict: Verdict) -> list[str]:
    kinds = (("lost", verdict.lost), ("changed", verdict.changed), ("invented", verdict.invented))
    return [f"{len(rows)} rows {kind}: {rows[:10]}" for kind, rows in kinds if rows]


def _invented(files: list[File], rows: dict[str, str]) -> list[str]:
    known = {file.record for file in files}
    return [f"nobody uploaded the file {record}" for record in rows if record not in known]


def _shown(answer: Answer | None) -> str:
    return "got no answer" if answer is None else f"{answer.status} {answer.body[:200]!r}"
