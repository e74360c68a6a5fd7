"""GETs of small objects in the cluster's bucket, asked from the reactor itself.

A look at the owner object stands behind each group of writes: through boto3 in a thread it would
cost some milliseconds of Python's lock. Signed by botocore (SigV4), sent by ``web.asking``. All
other calls are rare and go through boto3 (``s3``).
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

import attrs
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from pbcluster.errors import S3Unavailable, StorageCorrupt
from pbcluster.s3_client import MAX_OBJECT_BYTES, READ_TIMEOUT_S, S3Address, refuse
from pbcluster.web.asking import Asker, NoReply, Reply
from pbcluster.web.pool import UpstreamPool, tcp_endpoints
from pbcluster.web.tls.client import VerifiedEndpoint

#: Of the SHA-256 of no body.
_EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_PORTS = {"http": 80, "https": 443}
#: Kept open when idle: as many looks as may come at once on a busy node.
MAX_IDLE_CONNECTIONS = 64
#: S3 closes idle connections after some 20 s; who closes first meets no surprise.
IDLE_S = 10.0


@attrs.frozen
class Stored:
    """An object's content and ETag."""

    body: bytes
    etag: str


class S3Gets:
    """See the module. An https endpoint is verified against the system's authorities, by DNS name.

    :ivar tls_failures: ``not_verified`` and ``timeout`` → how often since the start.
    """

    def __init__(self, reactor: Any, address: S3Address) -> None:
        """
        :param reactor: TCP and time.
        """
        self.tls_failures = Counter[str]()
        where = urlsplit(address.endpoint)
        host, port = where.hostname or "", where.port or _PORTS[where.scheme]
        plain = tcp_endpoints(reactor)

        def secure(name: str, host: str, port: int, timeout_s: float) -> IStreamClientEndpoint:
            stream = plain(host, port, timeout_s)
            creator = optionsForClientTLS(name)
            return VerifiedEndpoint(reactor, stream, creator, name, timeout_s, self.tls_failures)

        pool = UpstreamPool(
            reactor,
            plain,
            secure=secure,
            max_idle_per_upstream=MAX_IDLE_CONNECTIONS,
            idle_s=IDLE_S,
        )
        self._asker = Asker(pool, host, port, host if where.scheme == "https" else "")
        self._base = address.endpoint.rstrip("/")
        self._bucket = address.bucket
        credentials = Credentials(address.access_key, address.secret_key)
        self._signer = S3SigV4Auth(credentials, "s3", address.region)

    def __repr__(self) -> str:
        return f"<S3Gets bucket={self._bucket!r}>"

    def close(self) -> None:
        """Close the kept connections."""
        self._asker.close()

    async def get(self, key: str) -> Stored | None:
        """The object, None if there is none.

        :raises StorageCorrupt: it is larger than what we write.
        :raises S3Refused, S3Unavailable: see ``s3_client``.
        """
        target = f"/{self._bucket}/{quote(key)}"
        try:
            reply = await self._asker.ask(
                b"GET",
                target.encode(),
                self._signed(target),
                timeout_s=READ_TIMEOUT_S,
                max_body_bytes=MAX_OBJECT_BYTES + 1,
            )
        except NoReply as error:
            raise S3Unavailable(f"S3 did not answer GET {key}: {error}") from None
        if reply.status == 200:
            if len(reply.body) > MAX_OBJECT_BYTES:
                raise StorageCorrupt(f"the object {key} in S3 has over {MAX_OBJECT_BYTES} bytes")
            return Stored(reply.body, reply.header(b"etag").decode("latin-1"))
        code = _code(reply)
        if reply.status == 404 and code in ("NoSuchKey", ""):
            return None
        refuse("GET", key, reply.status, code)

    def _signed(self, target: str) -> list[tuple[bytes, bytes]]:
        request = AWSRequest(method="GET", url=self._base + target)
        request.headers["X-Amz-Content-SHA256"] = _EMPTY
        self._signer.add_auth(request)
        fields = [(b"Host", urlsplit(self._base).netloc.encode())]
        for name, value in request.headers.items():
            fields.append((name.encode(), value if isinstance(value, bytes) else value.encode()))
        return fields


def _code(reply: Reply) -> str:
    """S3's own word for what is wrong, empty if it said none."""
    try:
        return ElementTree.fromstring(reply.body).findtext(".//{*}Code", "")
    except ElementTree.ParseError:
        return ""
