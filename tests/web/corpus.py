"""The refused requests of ``pbcluster.testing.http_corpus`` as name → (bytes, status)."""

from __future__ import annotations

from pbcluster.testing.http_corpus import REQUESTS, chunked, get, line, post

__all__ = ["BAD_BODIES", "BAD_HEADS", "chunked", "get", "line", "post"]

_REFUSED = [case for case in REQUESTS if case.refused and case.group != "40"]

BAD_HEADS: dict[str, tuple[bytes, int]] = {
    case.name: (case.raw, case.statuses[0]) for case in _REFUSED if not case.in_body
}

BAD_BODIES: dict[str, tuple[bytes, int]] = {
    case.name: (case.raw, case.statuses[0]) for case in _REFUSED if case.in_body
}
