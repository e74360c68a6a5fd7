"""An S3 that misbehaves: an HTTP proxy before a real one, whose answers a test decides.

    with S3Faults("http://127.0.0.1:8333") as s3:
        ...  # a node with s3_endpoint = s3.url
        s3.set(Trouble(status=500))
        s3.set(FINE)

What can happen to each request (of :class:`Trouble`): an error of S3's instead of it, a delay, half
of its answer and then the connection's end, or its being carried out without any answer. The Host
header is left as it is, so signatures stay valid. Each request has a connection of its own behind
the proxy. Everything runs in one thread; :meth:`S3Faults.set` counts from the next request on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from types import TracebackType
from urllib.parse import urlsplit

import attrs

_MAX_HEAD_BYTES = 64 * 1024
_READ_BYTES = 64 * 1024
_STARTS_WITHIN_S = 10.0
_CODES = {403: "AccessDenied", 404: "NoSuchBucket", 500: "InternalError", 503: "SlowDown"}


@attrs.frozen(kw_only=True)
class Trouble:
    """What happens to requests.

    :ivar status: it is answered with this error and not carried out; 0: it is carried out.
    :ivar delay_s: before anything else happens.
    :ivar half: only half of the answer comes. :ivar lost: nothing of it does.
    :ivar methods: of the requests that are meant; empty: of all.
    """

    status: int = 0
    delay_s: float = 0.0
    half: bool = False
    lost: bool = False
    methods: tuple[str, ...] = ()

    def meets(self, method: str) -> bool:
        """Whether it happens to a request of this method."""
        return not self.methods or method in self.methods


FINE = Trouble()


class S3Faults:
    """See the module.

    :ivar url: the endpoint to use. :ivar met: requests that met trouble.
    :ivar seen: kind of request (``list``, else its method in small letters) → how many came.
    """

    def __init__(self, endpoint: str) -> None:
        """
        :param endpoint: URL of the real S3.
        """
        where = urlsplit(endpoint)
        self._there = (where.hostname or "127.0.0.1", where.port or 80)
        self._trouble = FINE
        self.url = ""
        self.met = 0
        self.seen: Counter[str] = Counter()
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="s3 faults", daemon=True)

    def __enter__(self) -> S3Faults:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        if not self._started.wait(_STARTS_WITHIN_S):
            raise RuntimeError("the proxy did not start")

    def close(self) -> None:
        """End; open connections are cut."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_STARTS_WITHIN_S)

    def set(self, trouble: Trouble) -> None:
        """This happens from the next request on."""
        self._trouble = trouble

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=_MAX_HEAD_BYTES)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._started.set()
        await self._end.wait()
        server.close()
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._one(reader, writer)
        except (OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # either side went away
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target = head.decode("latin-1").split(" ", 2)[:2]
        lists = method == "GET" and "list-type=" in target
        self.seen["list" if lists else method.lower()] += 1
        trouble = self._trouble if self._trouble.meets(method) else FINE
        self.met += trouble is not FINE
        if trouble.delay_s:
            await asyncio.sleep(trouble.delay_s)
        if trouble.status:
            # An unread body would reset the connection before the answer was read.
            if b"100-continue" not in head.lower():
                await _body(reader, head, None)
            writer.write(_error(trouble.status))
            await writer.drain()
            return
        back, there = await asyncio.open_connection(*self._there)
        try:
            there.write(_closing(head))
            sending = asyncio.ensure_future(_body(reader, head, there))
            answer = await self._answer(back, writer, trouble)
            if trouble.half:
                writer.write(answer[: len(answer) // 2])
                await writer.drain()
            sending.cancel()
        finally:
            there.close()

    async def _answer(
        self, back: asyncio.StreamReader, writer: asyncio.StreamWriter, trouble: Trouble
    ) -> bytes:
        """Pass the answer on, or, for trouble with it, keep it."""
        kept = b""
        while data := await back.read(_READ_BYTES):
            interim = data.startswith(b"HTTP/1.1 100")
            if interim or not (trouble.half or trouble.lost):
                writer.write(data)
                await writer.drain()
            else:
                kept += data
        return kept


async def _body(
    reader: asyncio.StreamReader, head: bytes, there: asyncio.StreamWriter | None
) -> None:
    """Carry the request's body to ``there``, or drop it."""
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    chunked = b"transfer-encoding: chunked" in head.lower()
    with contextlib.suppress(asyncio.CancelledError):
        while length > 0 or chunked:
            data = await reader.read(_READ_BYTES if chunked else min(length, _READ_BYTES))
            if not data:
                return
            length -= len(data)
            if there is not None:
                there.write(data)
                await there.drain()
            if chunked and data.endswith(b"0\r\n\r\n"):
                return


def _closing(head: bytes) -> bytes:
    """The head with ``Connection: close``: the answer's end is then the connection's."""
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([lines[0], b"Connection: close", *lines[1:]])


def _error(status: int) -> bytes:
    code = _CODES.get(status, "InternalError")
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>trouble</Message></Error>"
    return (
        f"HTTP/1.1 {status} Trouble\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()
