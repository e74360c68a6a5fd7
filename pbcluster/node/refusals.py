"""Answers of the node itself to requests that it does not hand on, or whose answer it may not show.

What holds:

* An error that came before the hand-over carries the mark "not processed", so that the gateway may
  send the request elsewhere whatever its method; a ``Withheld`` one was processed and has none.
* What is over a tenant's limit carries no mark: it is for the client, and no trouble of the node.
* Every such answer is counted by its status; a client that is gone gets none.

It does not decide who is refused, and cuts no connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from pbcluster import signing
from pbcluster.errors import (
    Busy,
    Limited,
    OwnershipLost,
    PBClusterError,
    StorageFull,
    Unauthorized,
    Unavailable,
)
from pbcluster.node.acks import Withheld
from pbcluster.node.prover import NoProof
from pbcluster.rates import Refusal
from pbcluster.web.interfaces import Exchange


class NoAnswer(PBClusterError):
    """The tenant's PocketBase took too long: its fault, not the node's."""

    status = 504
    code = "tenant_timeout"


#: Error → mark; the first that fits counts. ``Withheld`` was processed, so it has none.
MARKS: tuple[tuple[type[PBClusterError], bytes], ...] = (
    (Unauthorized, b"unsigned"),
    (OwnershipLost, b"moved"),
    (NoProof, b"no-proof"),
    (Busy, b"busy"),
    (Withheld, b""),
    (Unavailable, b"loading"),
)


def mark_of(error: PBClusterError) -> bytes:
    """The reason of the mark "not processed", empty: no mark."""
    return next((mark for kind, mark in MARKS if isinstance(error, kind)), b"")


class Refusals:
    """See the module."""

    def __init__(
        self,
        *,
        answered: Callable[[int], None],
        limited: Callable[[str], None],
        draining: Callable[[], bool],
    ) -> None:
        """
        :param answered: counts the statuses. :param limited: counts requests refused because of a
            tenant's limit, by reason. :param draining: whether the node ends: the mark says so.
        """
        self._answered = answered
        self._limited = limited
        self._draining = draining

    def refuse(self, exchange: Exchange, error: PBClusterError) -> None:
        """Answer an error, with the mark if nothing was processed."""
        if exchange.client_gone:
            return
        self._answered(error.status)
        headers: list[tuple[bytes, bytes]] = []
        mark = mark_of(error)
        if mark and self._draining():
            mark = b"draining"
        if mark:
            headers.append((signing.NOT_PROCESSED, mark))
        if mark == b"moved":
            headers.append((signing.NODE_EPOCH, b"%d" % int(error.data.get("epoch", 0))))
        if isinstance(error, Unavailable) and error.status == 503:
            headers.append((b"Retry-After", b"%d" % max(1, round(error.retry_after_s))))
        if isinstance(error, NoAnswer):
            headers.append((signing.NO_ANSWER, signing.TENANT))
        more = error.data if isinstance(error, StorageFull) else {}
        data = {"code": error.code, **more}
        body = {"status": error.status, "message": error.message, "data": data}
        exchange.respond(error.status, json.dumps(body).encode(), headers=headers)

    def turn_away(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer a request over a tenant's limit. No mark: this is for the client, and no trouble
        of the node."""
        if exchange.client_gone:
            return
        self._answered(refusal.status)
        self._limited(refusal.reason)
        data = {"code": Limited.code if refusal.status == Limited.status else Busy.code}
        body = {"status": refusal.status, "message": refusal.message, "data": data}
        exchange.respond(refusal.status, json.dumps(body).encode(), headers=refusal.headers())
