"""What the front door reads from heads of requests and answers, and what it makes of them.

What holds:

* A mark of the platform passes in neither direction: neither a client nor a tenant's hook speaks in
  the node's name.
* What depends on a head's lines alone is computed once for all heads with the same lines
  (``head.memo``).

It decides nothing: who is let in stands in ``front``.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from pbcluster import signing
from pbcluster.node.acks import Level
from pbcluster.web.headers import encode_lines, end_to_end
from pbcluster.web.interfaces import Memo, RequestHead, ResponseHead

#: PocketBase's in-place restore, in every spelling that its router takes for it.
_RESTORE = re.compile(rb"/+api/+backups/+(.*)/restore/*", re.DOTALL)
#: Made anew: Host by us, the length by the core.
_OWN_FIELDS = frozenset((b"host", b"content-length"))
#: Answers that end with their head (RFC 9112, section 6.3).
_BODILESS = frozenset((204, 304))
_PERCENT = ord("%")
#: Paths of the platform's own routes in PocketBase (``platform_door``).
_PLATFORM = re.compile(rb"[/\\.]*api[/\\.]+pbcluster(?:[^\w-].*)?", re.DOTALL | re.IGNORECASE)


class SeenRequest:
    """What was read from a request's fields; requests with the same lines share it.

    :ivar lines: for PocketBase: the Host that came, no marks, nothing of the connection.
    """

    def __init__(self, lines: bytes, traced: bool, signed: bytes) -> None:
        self.lines = lines
        self.traced = traced
        self.signed = signed


def see_request(head: RequestHead) -> SeenRequest:
    """What is to be known of its fields.

    :raises Unauthorized: it is signed twice.
    """
    memo: Memo | None = head.memo
    if memo is not None and memo.value is not None:
        known: SeenRequest = memo.value
        return known
    fields = end_to_end(signing.without_marks(head.headers), _OWN_FIELDS)
    fields.insert(0, (b"Host", head.get(b"host") or head.host))
    traced = head.get(b"traceparent") is not None
    seen = SeenRequest(encode_lines(fields), traced, signing.found_in(head.headers))
    if memo is not None:
        memo.value = seen
    return seen


def upstream_lines(head: RequestHead, request_id: str) -> bytes:
    """The field lines for PocketBase.

    :param request_id: 32 hex digits; of a trace that began here, its id.
    """
    seen: SeenRequest = see_request(head)
    if seen.traced:
        return b"".join((seen.lines, f"X-Request-ID: {request_id}\r\n".encode()))
    trace = f"traceparent: 00-{request_id}-{request_id[:16]}-00\r\n"
    return b"".join((seen.lines, f"X-Request-ID: {request_id}\r\n{trace}".encode()))


def marked(head: ResponseHead, level: Level) -> ResponseHead:
    """The head with the word on how durable the write is."""
    mark = (signing.DURABILITY, level.value.encode())
    return ResponseHead(head.status, head.reason, [*head.headers, mark])


class SeenAnswer:
    """What was read from PocketBase's head; answers with the same head share it.

    :ivar passed: the head without marks. :ivar stream: it begins an event stream.
    :ivar endless: nothing tells how long the body is.
    """

    def __init__(self, passed: ResponseHead, stream: bool, endless: bool) -> None:
        self.passed = passed
        self.stream = stream
        self.endless = endless


def see_answer(head: ResponseHead) -> SeenAnswer:
    """See :class:`SeenAnswer`; remembered."""
    content_type = head.get(b"content-type") or b""
    answer = SeenAnswer(
        ResponseHead(head.status, head.reason, signing.without_marks(head.headers)),
        content_type.lower().startswith(b"text/event-stream"),
        head.get(b"content-length") is None and head.status not in _BODILESS,
    )
    head.memo = answer
    return answer


def backup_to_restore(head: RequestHead) -> str | None:
    """The name of the backup by which PocketBase would replace its database in place, under the
    replication: it would say that it did, and everything since would never become durable. None:
    this is another request."""
    path = unquote_to_bytes(head.target.partition(b"?")[0])
    found = _RESTORE.fullmatch(path) if head.method == b"POST" else None
    return None if found is None else found[1].decode("utf-8", "replace")


def is_platforms(target: bytes) -> bool:
    """Whether a request's target is one of the platform's routes in PocketBase, in any spelling
    that a router may take for it: percent-encoded (twice too), with doubled slashes or dots, in
    capitals."""
    # Bytes are found in bytes by a detour; an int, or by ``find``, they are not.
    if _PERCENT not in target and target.lower().find(b"pbcluster") < 0:
        return False
    path = unquote_to_bytes(unquote_to_bytes(target.partition(b"?")[0]))
    if b"pbcluster" not in path.lower():
        return False
    # ``/x/../api/pbcluster/…``: no client needs a way back in a path that names us.
    return _PLATFORM.fullmatch(path) is not None or b".." in path
