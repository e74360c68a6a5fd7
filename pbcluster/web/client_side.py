"""The seam between an attempt to forward a request (``attempt``) and its ``exchange``."""

from __future__ import annotations

from typing import Protocol

from pbcluster.web.interfaces import RequestHead
from pbcluster.web.replay import NoBody, RequestBody


class ClientSide(Protocol):
    """What an attempt needs of its exchange."""

    @property
    def head(self) -> RequestHead:
        """The request."""

    @property
    def body(self) -> NoBody | RequestBody:
        """Its body."""

    @property
    def awaits_continue(self) -> bool:
        """Whether the client waits for 100 Continue."""

    @property
    def slow(self) -> bool:
        """Whether the client takes no more bytes for now."""

    def send_continue(self) -> None:
        """Pass on a 100 Continue."""

    def choose_close(self, forced: bool) -> bool:
        """Decide, before the response's head is written, whether the connection ends after it."""

    def write(self, data: bytes) -> None:
        """Send response bytes to the client."""

    def cut(self) -> None:
        """Abort the client's connection."""

    def update_reading(self) -> None:
        """Something changed that may pause or resume the upload."""
