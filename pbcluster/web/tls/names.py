"""Which host names a certificate covers. Pure.

RFC 6125, section 6.4.3, in the strict reading that browsers have: a wildcard is the whole first
label, stands for exactly one label, and at least two labels follow it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_WILDCARD = re.compile(rf"\*\.{_LABEL}(?:\.{_LABEL})+")
#: RFC 1035, section 2.3.4.
MAX_NAME = 253


def normal(name: str) -> str:
    """Lower case, without one trailing dot."""
    return name.lower().removesuffix(".")


def usable(names: Iterable[str]) -> frozenset[str]:
    """The names of a certificate by which it can be chosen, in their normal form; others, such as
    ``f*.example.com`` or ``*.com``, cover nothing."""
    found = map(normal, names)
    return frozenset(
        name
        for name in found
        if len(name) <= MAX_NAME and (_NAME.fullmatch(name) or _WILDCARD.fullmatch(name))
    )


def wildcard_of(host: str) -> str:
    """The wildcard that would cover ``host``: ``*.example.com`` for ``shop.example.com``."""
    return f"*.{host.partition('.')[2]}"


def covers(names: frozenset[str], host: str) -> bool:
    """Whether one of a certificate's usable names is, or covers, ``host`` (in its normal form)."""
    return host in names or wildcard_of(host) in names
