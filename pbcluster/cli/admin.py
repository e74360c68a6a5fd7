"""The admin API as a command sees it: bearer token in, records out, errors as one sentence.

Blocking, one request a call, each with a timeout. The token is read from ``DIR/admin.token`` by the
caller and travels in a header only.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import attrs

from pbcluster.cli.http import MAX_ANSWER_BYTES, Answer, Unreachable, ask
from pbcluster.cli.layout import Plan
from pbcluster.errors import (
    CallerError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    NotFound,
    PBClusterError,
    Unauthorized,
    Unavailable,
    Unprocessable,
)

#: Seconds the control plane itself waits for a new tenant, and we for it in all.
CREATE_WAIT_S = 30
DELETE_WAIT_S = 10
ANSWER_WITHIN_S = 60.0
#: A login wakes its tenant: the control plane gives up after 30 s.
LOGIN_WITHIN_S = 40.0
_TIMEOUT_S = 10.0
#: The whole state of 100,000 tenants has some 50 MB.
MAX_DOWNLOAD_BYTES = 1024**3
_PER_PAGE = 200
_MAX_PAGES = 1000
_POLL_S = 0.05
#: A change of a record that was changed since it was read is made so often.
_CHANGE_TRIES = 5
#: So long a call is repeated while the members have no leader; an election takes half a second.
ELECTION_WITHIN_S = 10.0
_ELECTION = ("not_leader", "deadline")
_BY_STATUS: dict[int, type[PBClusterError]] = {
    400: InvalidInput,
    401: Unauthorized,
    404: NotFound,
    403: Forbidden,
    409: Conflict,
    422: Unprocessable,
}


@attrs.frozen
class AdminClient:
    """Asks a member's admin API; any member takes any request.

    :ivar url: its base URL, without a path.
    :ivar token: the bearer token; empty: what is asked needs none.
    :ivar others: base URLs of the other members, asked in turn when nobody answers.
    :ivar ca: file with the authorities of their certificates; empty: the system's.
    """

    url: str
    token: str = attrs.field(repr=False)
    others: tuple[str, ...] = ()
    ca: str = ""

    @classmethod
    def of(cls, plan: Plan, token: str) -> AdminClient:
        """A client of all members of a plan."""
        return cls(plan.admin_urls[0], token, plan.admin_urls[1:], plan.admin_ca)

    def request(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        timeout_s: float = _TIMEOUT_S,
    ) -> Any:
        """One call.

        :param path: below ``/api/cp``, with its query.
        :returns: the decoded JSON, None for an empty answer.
        :raises PBClusterError: what the API answered, or that it did not.
        """
        headers = {"Accept": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        if method != "GET":
            # Whoever is asked again, and whichever member does it: it is done once.
            headers["Idempotency-Key"] = secrets.token_hex(12)
        until = time.monotonic() + ELECTION_WITHIN_S
        while True:
            answer = self._ask(method, f"/api/cp{path}", headers, content, timeout_s)
            try:
                decoded = json.loads(answer.body) if answer.body.strip() else None
            except ValueError:
                decoded = None
            if answer.status < 400:
                return decoded
            if not _no_leader(answer.status, decoded) or time.monotonic() >= until:
                raise _error(answer.status, decoded)
            time.sleep(_POLL_S)

    def _ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes | None,
        timeout_s: float,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        """The answer of the first member that gives one. :raises Unreachable: none does."""
        for url in (self.url, *self.others):
            try:
                return ask(
                    method,
                    url + path,
                    headers=headers,
                    body=body,
                    timeout_s=timeout_s,
                    ca=self.ca,
                    max_answer_bytes=max_answer_bytes,
                )
            except Unreachable as error:
                last = error
        raise last

    def download(self, path: str, *, timeout_s: float = 60.0) -> bytes:
        """The bytes of an answer that is no JSON. :raises PBClusterError: as :meth:`request`."""
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = self._ask(
            "GET", f"/api/cp{path}", headers, None, timeout_s, max_answer_bytes=MAX_DOWNLOAD_BYTES
        )
        if answer.status < 400:
            return answer.body
        try:
            decoded = json.loads(answer.body)
        except ValueError:
            decoded = None
        raise _error(answer.status, decoded)

    def health(self, timeout_s: float = 2.0) -> dict[str, Any]:
        """What the member says of itself."""
        found = self.request("GET", "/health", timeout_s=timeout_s)
        return found if isinstance(found, dict) else {}

    def all(self, what: str) -> list[dict[str, Any]]:
        """Every item of a list (``tenants``, ``nodes``), page after page."""
        return list(self._pages(what))

    def _pages(self, what: str) -> Iterator[dict[str, Any]]:
        for page in range(1, _MAX_PAGES + 1):
            query = urlencode({"page": page, "perPage": _PER_PAGE})
            found = self.request("GET", f"/{what}?{query}") or {}
            items = found.get("items", [])
            yield from items
            if not items or page * int(found.get("perPage") or _PER_PAGE) >= int(
                found.get("totalItems") or 0
            ):
                return

    def create_tenant(
        self, name: str, email: str = "", password: str = "", **more: Any
    ) -> dict[str, Any]:
        """Create a tenant; returns its record once the control plane stopped waiting for it.

        :param email: login of its first superuser; empty: none.
        :param more: further fields of the request, such as ``durability``.
        """
        body: dict[str, Any] = {"name": name} | more
        if email:
            body["superuser"] = {"email": email, "password": password}
        path = f"/tenants?wait={CREATE_WAIT_S}"
        created = self.request("POST", path, body, timeout_s=CREATE_WAIT_S + _TIMEOUT_S)
        return created if isinstance(created, dict) else {}

    def tenant(self, name_or_id: str) -> dict[str, Any]:
        """One tenant's record."""
        return dict(self.request("GET", f"/tenants/{quote(name_or_id, safe='')}"))

    def change_tenant(
        self, name_or_id: str, quotas: dict[str, float], **settings: Any
    ) -> dict[str, Any]:
        """Change some settings of a tenant and leave the others; returns its record.

        :param quotas: by their JSON names; 0 is the platform's default.
        :param settings: other fields, by their JSON names.
        :raises Conflict: somebody else changes it again and again.
        """
        for left in reversed(range(_CHANGE_TRIES)):
            found = self.tenant(name_or_id)
            body: dict[str, Any] = settings | {"version": found["version"]}
            if quotas:
                body["quotas"] = found.get("quotas", {}) | quotas
            # By id: the name could belong to another tenant by now.
            path = f"/tenants/{quote(str(found['id']), safe='')}"
            try:
                return dict(self.request("PUT", path, body))
            except Conflict:
                if not left:
                    raise
        raise AssertionError

    def give_away(self, name_or_id: str) -> dict[str, Any]:
        """Let go of a degraded tenant, and of what only its node has."""
        path = f"/tenants/{quote(name_or_id, safe='')}/give-away"
        return dict(self.request("POST", path, {"acceptLoss": True}))

    def login(self, name_or_id: str, email: str, seconds: int) -> dict[str, Any]:
        """A token for a superuser of a tenant; an empty ``email`` means its first one."""
        path = f"/tenants/{quote(name_or_id, safe='')}/login"
        body = {"email": email, "expiresIn": seconds}
        return dict(self.request("POST", path, body, timeout_s=LOGIN_WITHIN_S))

    def log_lines(self, name_or_id: str, after: str, most: int) -> dict[str, Any]:
        """What a tenant's PocketBase printed after a cursor (empty: the last ``most`` lines)."""
        query = urlencode({"after": after, "most": most})
        return dict(self.request("GET", f"/tenants/{quote(name_or_id, safe='')}/logs?{query}"))

    def archive_tenant(self, name_or_id: str) -> dict[str, Any]:
        """Archive a tenant. :returns: its record, whose status tells whether it is done."""
        path = f"/tenants/{quote(name_or_id, safe='')}/archive?wait={DELETE_WAIT_S}"
        return dict(self.request("POST", path, {}, timeout_s=DELETE_WAIT_S + _TIMEOUT_S))

    def activate_tenant(self, name_or_id: str) -> dict[str, Any]:
        """Let an archived tenant answer again. :returns: its record."""
        return dict(self.request("POST", f"/tenants/{quote(name_or_id, safe='')}/activate", {}))

    def delete_tenant(self, name_or_id: str, *, purge_now: bool = False) -> dict[str, Any]:
        """Delete a tenant. :returns: its record, whose status tells whether the end is done.

        :param purge_now: its objects leave S3 at once; also for a tenant that is deleted already.
        """
        words = {"confirm": name_or_id, "wait": DELETE_WAIT_S}
        query = urlencode(words | ({"purge": "now"} if purge_now else {}))
        path = f"/tenants/{quote(name_or_id, safe='')}?{query}"
        deleted = self.request("DELETE", path, timeout_s=DELETE_WAIT_S + _TIMEOUT_S)
        return deleted if isinstance(deleted, dict) else {}


def _no_leader(status: int, body: Any) -> bool:
    """Whether the answer means that the members are choosing a leader: ask again."""
    data = body.get("data") if isinstance(body, dict) else None
    return status in (503, 504) and isinstance(data, dict) and data.get("code") in _ELECTION


def _error(status: int, body: Any) -> PBClusterError:
    """The error of an answer ``{"status", "message", "data"}``; PocketBase nests field errors."""
    told = body if isinstance(body, dict) else {}
    message = str(told.get("message") or f"the admin API answered with status {status}")
    data = told.get("data")
    for field, detail in data.items() if isinstance(data, dict) else ():
        text = detail.get("message") if isinstance(detail, dict) else None
        if text and str(text) not in message:
            message += f" ({field}: {text})"
    fallback: type[PBClusterError] = CallerError if status < 500 else Unavailable
    return _BY_STATUS.get(status, fallback)(message)


def wait_tenant_answers(gateway_url: str, host: str, timeout_s: float = ANSWER_WITHIN_S) -> None:
    """Wait until the tenant's health check answers 200 through the gateway.

    :param host: the tenant's host name, sent as Host: it need not resolve here.
    :raises DeadlineExceeded: it did not within ``timeout_s`` seconds; says what came instead.
    """
    until = time.monotonic() + timeout_s
    last = "nothing"
    while (left := until - time.monotonic()) > 0:
        try:
            answer = ask(
                "GET",
                f"{gateway_url}/api/health",
                headers={"Host": host},
                timeout_s=min(left, CREATE_WAIT_S),
            )
            if answer.status == 200:
                return
            last = f"status {answer.status} {answer.body[:200].decode('utf-8', 'replace')}"
        except Unreachable as error:
            last = str(error)
        time.sleep(_POLL_S)
    raise DeadlineExceeded(f"{host} did not answer within {timeout_s:.0f} s; the last was: {last}")
