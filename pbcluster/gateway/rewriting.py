"""What changes in a request's header fields when not its Host alone named the tenant. Pure.

Called only then. The Host becomes the tenant's own, so that the node, which checks it, knows it,
and PocketBase sees a name that it has; what the client sent stays in ``X-Forwarded-Host``. A
platform token is taken out, and the tenant's own token, which had to make room for it in
``X-PocketBase-Authorization``, takes its place.
"""

from __future__ import annotations

from pbcluster.errors import InvalidInput
from pbcluster.platform_tokens import is_ours
from pbcluster.web.headers import Field, encode_lines
from pbcluster.web.interfaces import Headers

AUTHORIZATION = b"authorization"
TENANTS_OWN = b"x-pocketbase-authorization"
_LENGTH = len(AUTHORIZATION)


def bears_ours(headers: Headers) -> bool:
    """Whether an Authorization field has what may be a platform token."""
    return any(
        len(name) == _LENGTH and is_ours(value) and name.lower() == AUTHORIZATION
        for name, value in headers
    )


def check_tenants_own(headers: Headers) -> None:
    """Of a request with a platform token. :raises InvalidInput: what would take its place is not
    one token of the tenant's own."""
    values = [value for name, value in headers if name.lower() == TENANTS_OWN]
    if len(values) > 1 or any(is_ours(value) for value in values):
        rule = "one token of the tenant's PocketBase"
        raise InvalidInput(
            f"X-PocketBase-Authorization must be {rule}",
            field="X-PocketBase-Authorization",
            allowed=rule,
        )


def rewritten(headers: Headers, *, host: str, token: bool) -> list[Field]:
    """The fields for the node, from those that it would get otherwise.

    :param host: the tenant's own, in place of the client's; empty: the client's stays.
    :param token: whether the request bears a platform token.
    """
    changed: list[Field] = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"host" and host:
            changed.append((name, host.encode("ascii")))
        elif token and lower == AUTHORIZATION:
            continue
        elif token and lower == TENANTS_OWN:
            changed.append((b"Authorization", value))
        else:
            changed.append((name, value))
    return changed


def rewritten_lines(lines: bytes, *, host: str, token: bool) -> bytes:
    """As :func:`rewritten`, of field lines as they are sent."""
    fields = (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])
    return encode_lines(
        rewritten([(name, value) for name, _, value in fields], host=host, token=token)
    )
