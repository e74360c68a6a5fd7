"""Token buckets, and what somebody over a limit is told. Pure.

A bucket holds at most ``burst`` tokens and gains ``rate`` of them a second; each request takes one.
So within any ``t`` seconds at most ``rate * t + burst`` pass. The caller's clock may jump: forward
it fills the bucket at most to its brim, backward it fills nothing and empties nothing.

A refusal has the fields that most client libraries read: ``Retry-After`` (RFC 9110, section 10.2.3)
and ``RateLimit-Limit``, ``-Remaining``, ``-Reset`` (draft-ietf-httpapi-ratelimit-headers up to its
06th version; the later ones changed to structured fields that hardly anybody reads yet). They stand
on refusals only: an answer that was let through costs nothing.
"""

from __future__ import annotations

import math

import attrs

#: So many seconds' worth of requests may come at once where a rate has no burst of its own.
DEFAULT_BURST_S = 2.0

Headers = list[tuple[bytes, bytes]]


class TokenBucket:
    """One bucket; full when it is made.

    Rate and burst are arguments, so that many buckets share them and they can be changed.

    :ivar tokens: what was in it at ``at``. :ivar at: seconds of the caller's clock.
    """

    __slots__ = ("at", "tokens")

    def __init__(self, burst: float, now: float) -> None:
        self.tokens = burst
        self.at = now

    def fill(self, now: float, rate: float, burst: float) -> float:
        """Let time pass; gives the tokens that are in it now.

        :param rate: tokens a second; 0: none come.
        :param burst: what it holds; ``math.inf`` is a bucket that never gets empty.
        """
        tokens = self.tokens
        if now > self.at:
            tokens += (now - self.at) * rate
        tokens = min(tokens, burst)
        self.at = now
        self.tokens = tokens
        return tokens

    def take(self, now: float, rate: float, burst: float) -> bool:
        """Take a token; False: there is none."""
        if self.fill(now, rate, burst) < 1.0:
            return False
        self.tokens -= 1.0
        return True

    def give_back(self, burst: float) -> None:
        """What a token was taken for was not done after all."""
        self.tokens = min(self.tokens + 1.0, burst)

    def wait_s(self, rate: float) -> float:
        """Seconds from ``at`` until a token is there."""
        lacking = 1.0 - self.tokens
        if lacking <= 0:
            return 0.0
        return lacking / rate if rate > 0 else math.inf


def burst_of(rate: float, burst: float) -> float:
    """The burst of a rate that may have none of its own (0)."""
    return burst if burst > 0 else max(1.0, math.ceil(rate * DEFAULT_BURST_S))


#: A limit that never ends by itself (how many at once) is asked about again after so long.
AGAIN_S = 1.0
#: However slow a rate is, nobody is sent away for longer.
MAX_RETRY_S = 3600.0
_EXPOSED = b"Retry-After, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset"


@attrs.frozen
class Refusal:
    """Why a request is not served, as a client is told.

    :ivar reason: a short word for logs and metrics. :ivar message: a sentence for people.
    :ivar limit: how many are allowed at once (of a rate: its burst); 0: not told.
    :ivar retry_after_s: when it makes sense to come back.
    :ivar status: 429: it is about who asks; 503: it is not.
    """

    reason: str
    message: str
    limit: int = 0
    retry_after_s: float = AGAIN_S
    status: int = 429

    @property
    def retry_after(self) -> int:
        """``retry_after_s`` in whole seconds, from 1 to an hour."""
        return max(1, math.ceil(min(self.retry_after_s, MAX_RETRY_S)))

    def headers(self) -> Headers:
        """The fields of the answer. Scripts of any origin may read them, as PocketBase's answers:
        without that a browser calls a 429 a network error."""
        fields = [
            (b"Retry-After", b"%d" % self.retry_after),
            (b"Access-Control-Allow-Origin", b"*"),
            (b"Access-Control-Expose-Headers", _EXPOSED),
            (b"Cache-Control", b"no-store"),
        ]
        if self.limit:
            fields += [
                (b"RateLimit-Limit", b"%d" % self.limit),
                (b"RateLimit-Remaining", b"0"),
                (b"RateLimit-Reset", b"%d" % self.retry_after),
            ]
        return fields


def over_rate(bucket: TokenBucket, rate: float, burst: float, whose: str, reason: str) -> Refusal:
    """The refusal of who has no token left.

    :param whose: "from this address", "for this tenant".
    """
    return Refusal(
        reason,
        f"too many requests {whose}: {rate:g} a second are allowed, {burst:g} at once",
        limit=int(burst),
        retry_after_s=bucket.wait_s(rate),
    )
