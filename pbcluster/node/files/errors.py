"""A refusal in S3's words. Pure."""

from __future__ import annotations

from xml.sax.saxutils import escape

#: What PocketBase's client may be told to wait before it asks again.
RETRY_AFTER_S = 1


class S3Error(Exception):
    """The request is refused.

    :ivar status: HTTP status. :ivar code: S3's word for it. Its text goes to the tenant: no key of
        the cluster's, no address, no credential is in it.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message

    def body(self, request_id: str = "") -> bytes:
        """The XML document."""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{escape(self.code)}</Code><Message>{escape(self.message)}</Message>"
            f"<RequestId>{escape(request_id)}</RequestId></Error>"
        ).encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Header fields to send with it."""
        return [(b"Retry-After", b"%d" % RETRY_AFTER_S)] if self.status == 503 else []


def unavailable(message: str) -> S3Error:
    """It cannot be done now; nothing was changed."""
    return S3Error(503, "ServiceUnavailable", message)


def slow_down(message: str) -> S3Error:
    """Too much at once."""
    return S3Error(503, "SlowDown", message)


def no_such_key() -> S3Error:
    """There is no such object."""
    return S3Error(404, "NoSuchKey", "the object does not exist")


def not_implemented(what: str) -> S3Error:
    """It is not part of what is spoken here."""
    return S3Error(501, "NotImplemented", f"{what} is not offered here")
