"""The bounds of the HTTP core, each with its reason.

Values only. ``Limits`` is what a server may be told; the constants are what no setting changes.
"""

from __future__ import annotations

import attrs

KIB = 1024
MIB = 1024 * KIB

#: Bytes held on one side of a connection before the other side is paused.
HIGH_WATER_BYTES = 64 * KIB
#: Request body kept for a second attempt, a request: covers forms and JSON, not uploads.
REPLAY_BYTES = 64 * KIB
#: The same for all requests of a process together.
REPLAY_TOTAL_BYTES = 32 * MIB
#: Unread request body that is read and thrown away to keep a connection; more is not worth it.
DISCARD_BYTES = 256 * KIB
#: What a closing connection still reads, so that its client sees the answer and not a reset.
LINGER_BYTES = 16 * MIB
LINGER_S = 5.0


@attrs.frozen(kw_only=True)
class HeadLimits:
    """How large the head of a message may be.

    :ivar line_bytes: the first line, without its end. :ivar fields_bytes: all header fields with
        their line ends. :ivar fields: how many of them.
    """

    line_bytes: int = 8 * KIB
    fields_bytes: int = 16 * KIB
    fields: int = 100


#: Upstream answers: PocketBase hooks may set long cookies, yet nothing honest is larger.
RESPONSE_HEAD_LIMITS = HeadLimits(line_bytes=4 * KIB, fields_bytes=64 * KIB, fields=200)


@attrs.frozen(kw_only=True)
class Limits:
    """What a server connection may cost.

    :ivar head: sizes of a request's head (414, 431).
    :ivar max_body_bytes: largest request body (413).
    :ivar header_timeout_s: from a request's first byte, or the connection's start, to its whole
        head; absolute, so that a byte now and then does not extend it (408).
    :ivar body_idle_s: a body must bring ``min_body_bytes`` in each window of this length (408).
    :ivar min_body_bytes: see ``body_idle_s``; 30 bytes a second by default.
    :ivar keep_alive_s: silence between two requests.
    :ivar send_stall_s: a client that leaves a full send buffer undrained for so long is cut off.
    :ivar max_connections: further ones are closed at once; below usual descriptor limits.
    """

    head: HeadLimits = HeadLimits()
    max_body_bytes: int = 32 * MIB
    header_timeout_s: float = 10.0
    body_idle_s: float = 30.0
    min_body_bytes: int = 900
    keep_alive_s: float = 60.0
    send_stall_s: float = 300.0
    max_connections: int = 20_000
