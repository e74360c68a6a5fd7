"""The node's own way into a tenant's PocketBase: routes that ``platform/pbcluster.pb.js`` adds.

What holds:

* No client gets here: the front door answers 404 for these paths, however they are spelled
  (``heads.is_platforms``), and the header that opens them is one of the marks that it strips.
* Who reaches PocketBase's port some other way does not know the secret: it is random, made at each
  start, and kept in the node's memory only. The hook's file has its SHA-256, so neither the
  tenant's files nor its environment give it away.
* What comes back is bounded in size and time, and the tenant's word: its hooks run in that process.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

import treq
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.error import ConnectError, ConnectingCancelledError
from twisted.web.client import Agent, ResponseFailed

from pbcluster.errors import ProcessFailed

PREFIX = "/api/pbcluster/"
#: Begins as the platform's marks do, so that the front door drops it from every request.
HEADER = "X-PBCluster-Platform"
TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 16 * 1024


class PlatformDoor:
    """One start of one PocketBase."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._secret = secrets.token_hex(32)

    @property
    def secret_hash(self) -> str:
        """What the hook knows of the secret."""
        return hashlib.sha256(self._secret.encode()).hexdigest()

    async def ask(
        self, host: str, port: int, what: str, question: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One question.

        :param what: the route's name, below :data:`PREFIX`.
        :raises ProcessFailed: no answer in time, or none that could be one.
        """
        parts: list[bytes] = []
        try:
            response = await treq.post(
                f"http://{host}:{port}{PREFIX}{what}",
                json=dict(question),
                headers={HEADER: self._secret},
                agent=Agent(self._reactor, connectTimeout=TIMEOUT_S),
                reactor=self._reactor,
                timeout=TIMEOUT_S,
                allow_redirects=False,
                browser_like_redirects=False,
            )
            await treq.collect(response, _bounded(parts))
        except (
            ConnectError,
            ConnectingCancelledError,
            ResponseFailed,
            CancelledError,
            TimeoutError,
            OSError,
        ) as error:
            told = str(error) or type(error).__name__
            raise ProcessFailed(f"PocketBase does not answer the platform: {told}") from None
        try:
            answer = json.loads(b"".join(parts))
        except ValueError:
            answer = None
        if response.code != 200 or not isinstance(answer, dict):
            raise ProcessFailed(
                f"PocketBase answers the platform with status {response.code}: its hooks may "
                "have changed the platform's routes"
            )
        return answer


def _bounded(parts: list[bytes]) -> Any:
    size = 0

    def collect(data: bytes) -> None:
        nonlocal size
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            raise OSError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        parts.append(data)

    return collect
