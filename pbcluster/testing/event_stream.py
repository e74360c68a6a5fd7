"""One realtime subscription of PocketBase through a gateway, read by a thread of its own.

    stream = EventStream(client, "journal/*")
    stream.open()
    stream.wait_for("a value", within_s=10.0)

As :class:`~pbcluster.testing.workload.Client` it shares no HTTP with the platform. A stream that
was cut is opened again by :meth:`EventStream.open`; what was seen is kept.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import attrs

from pbcluster.testing.workload import REQUEST_TIMEOUT_S, Client, Failed

PATH = "/api/realtime"
_POLL_S = 0.02


@attrs.define
class EventStream:
    """See the module.

    :ivar client: subscribes. :ivar topic: of the subscription.
    :ivar seen: value of a record → moment (``time.monotonic()``) at which its first event came.
    """

    client: Client
    topic: str
    seen: dict[str, float] = attrs.field(factory=dict)
    _client_id: str = ""
    _connection: http.client.HTTPConnection | None = None
    _thread: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        """Whether the stream still runs."""
        return self._thread is not None and self._thread.is_alive()

    def open(self) -> None:
        """Connect and subscribe. :raises Failed: it was refused."""
        self.close()
        self._client_id = ""
        where = urlsplit(self.client.gateway)
        connection = http.client.HTTPConnection(
            where.hostname or "", where.port, timeout=REQUEST_TIMEOUT_S
        )
        connection.request("GET", PATH, headers={"Host": self.client.host})
        answer = connection.getresponse()
        if answer.status != 200:
            raise Failed(f"the stream was answered {answer.status}: {answer.read()[:200]!r}")
        self._connection = connection
        self._thread = threading.Thread(target=self._read, args=(answer,), daemon=True)
        self._thread.start()
        self._until(lambda: bool(self._client_id), "an event PB_CONNECT", 10.0)
        wish = {"clientId": self._client_id, "subscriptions": [self.topic]}
        status, told = self.client.ask("POST", PATH, wish)
        if status != 204:
            raise Failed(f"the subscription was answered {status}: {told}")

    def wait_for(self, value: str, within_s: float) -> None:
        """Return once an event told of a record with this value. :raises Failed: none did."""
        self._until(lambda: value in self.seen, f"an event of {value!r}", within_s)

    def close(self) -> None:
        """End it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.sock is not None:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
            connection.close()
        if self._thread is not None:
            self._thread.join(REQUEST_TIMEOUT_S)

    def _until(self, holds: Callable[[], bool], what: str, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while not holds():
            if time.monotonic() > deadline:
                raise Failed(f"no {what} within {within_s:g} s")
            time.sleep(_POLL_S)

    def _read(self, answer: http.client.HTTPResponse) -> None:
        try:
            for line in answer:
                if line.startswith(b"data:"):
                    self._told(json.loads(line[5:]))
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            return  # it was cut, or closed by us

    def _told(self, data: dict[str, object]) -> None:
        self._client_id = str(data.get("clientId", self._client_id))
        record = data.get("record")
        if isinstance(record, dict):
            self.seen.setdefault(str(record.get("value")), time.monotonic())
