"""Request heads for tests."""

from __future__ import annotations

from typing import Any

from pbcluster.web.interfaces import RequestHead

#: What a head has, in the order of its constructor.
FIELDS = (
    "method",
    "target",
    "host",
    "headers",
    "content_length",
    "chunked",
    "peer_host",
    "secure",
    "http_10",
    "keep_alive",
    "expects_continue",
    "memo",
    "first",
)


def told(head: RequestHead) -> dict[str, Any]:
    """All that it says, by name."""
    return {name: getattr(head, name) for name in FIELDS}


def changed(head: RequestHead, **changes: Any) -> RequestHead:
    """The same head with other values of some fields."""
    return RequestHead(**(told(head) | changes))
