"""The gateway's own answers: PocketBase's JSON errors, or a small page for a browser. Pure.

Errors may be read by scripts of any origin: PocketBase allows that for its own answers, and a
browser would otherwise hide our 503 behind "network error". They hold nothing of a tenant.
"""

from __future__ import annotations

import html
import json
import math

import attrs

from pbcluster.web.interfaces import Headers, RequestHead

_TITLES = {
    400: "This request is malformed",
    401: "This token is not valid",
    404: "There is nothing here",
    413: "That is too large",
    429: "Too many requests",
    502: "The answer broke off",
    503: "Just a moment",
    504: "No answer in time",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:16px/1.5 system-ui,sans-serif;margin:15vh auto;max-width:34rem;padding:0 1rem;
color:#222}}small{{color:#777}}</style></head>
<body><h1>{title}</h1><p>{message}</p><small>{status} · request {request_id}</small></body></html>
"""


@attrs.frozen
class Page:
    """An answer ready to be sent."""

    status: int
    body: bytes
    content_type: bytes
    headers: Headers


def wants_html(head: RequestHead) -> bool:
    """Whether ``text/html`` is preferred to JSON (RFC 9110, section 12.5.1)."""
    weights: dict[str, float] = {}
    for part in (head.get(b"accept") or b"").decode("latin-1").lower().split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        weights[kind] = _weight(parameters)
    other = weights.get("*/*", 0.0)
    json_weight = weights.get("application/json", weights.get("application/*", other))
    return weights.get("text/html", 0.0) > json_weight


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def error_page(
    head: RequestHead, status: int, message: str, request_id: str, retry_after_s: float = 0.0
) -> Page:
    """The answer for an error.

    :param message: a sentence; it may hold text from outside.
    :param retry_after_s: above 0: becomes Retry-After, in whole seconds.
    """
    headers = [
        (b"X-Request-ID", request_id.encode()),
        (b"Cache-Control", b"no-store"),
        (b"Access-Control-Allow-Origin", b"*"),
    ]
    if retry_after_s > 0:
        headers.append((b"Retry-After", b"%d" % math.ceil(retry_after_s)))
    if status == 401:
        # Only a platform token can be refused here (RFC 6750, section 3).
        headers.append((b"WWW-Authenticate", b'Bearer error="invalid_token"'))
    if wants_html(head):
        body = _PAGE.format(
            title=_TITLES.get(status, "That did not work"),
            message=html.escape(message),
            status=status,
            request_id=html.escape(request_id),
        )
        return Page(status, body.encode(), b"text/html; charset=utf-8", headers)
    answer = {"status": status, "message": message, "data": {}}
    return Page(status, json.dumps(answer).encode(), b"application/json", headers)
