"""Small, bounded HTTP questions to this machine's own services. No reactor, no proxy settings.

Every call has a timeout and a largest answer; what fails is an :class:`Unreachable` that names the
address, never a traceback.
"""

from __future__ import annotations

import http.client
import ssl
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import attrs

from pbcluster.errors import Unavailable

MAX_ANSWER_BYTES = 16 * 1024 * 1024


class Unreachable(Unavailable):
    """Nobody listens there, or no whole answer came in time."""

    code = "unreachable"


@attrs.frozen
class Answer:
    """Status, body and headers (names in lower case) of an answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def ask(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 5.0,
    max_answer_bytes: int = MAX_ANSWER_BYTES,
    ca: str = "",
    unverified: bool = False,
) -> Answer:
    """Send one request and read its whole answer.

    :param url: ``http://HOST:PORT/PATH?QUERY``, or https.
    :param ca: file with the authorities that are trusted; empty: the system's.
    :param unverified: of https: whoever answers is taken at its word; for what is public and
        checked by other means only.
    :param timeout_s: for the connection and for each wait for bytes.
    :raises Unreachable: no connection, no answer in time, or too large an answer.
    """
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection = _connection(parts, timeout_s, ca, unverified=unverified)
    try:
        connection.request(method, target, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        content = response.read(max_answer_bytes + 1)
        if len(content) > max_answer_bytes:
            raise Unreachable(f"{url} answered more than {max_answer_bytes} bytes")
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, content, found)
    except (OSError, http.client.HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(f"no answer from {parts.scheme}://{parts.netloc}: {reason}") from None
    finally:
        connection.close()


def _connection(
    parts: SplitResult, timeout_s: float, ca: str, *, unverified: bool
) -> http.client.HTTPConnection:
    """:raises Unreachable: the file of authorities cannot be used."""
    host = parts.hostname or ""
    if parts.scheme != "https":
        return http.client.HTTPConnection(host, parts.port or 80, timeout=timeout_s)
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except OSError as error:
        raise Unreachable(f"cannot read the authorities in {ca}: {error}") from None
    if unverified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, parts.port or 443, timeout=timeout_s, context=context)
