"""The seam between an attempt to forward a request (``attempt``) and its ``exchange``."""

from __future__ import annotations

from pbcluster.web.interfaces import Attempt, Exchange
from pbcluster.web.replay import Body


class ClientSide(Exchange):
    """What an attempt needs of its exchange. What it does is up to the class below it.

    :ivar body: the request's body, as far as it came.
    """

    body: Body

    def awaits_continue(self) -> bool:
        """Whether the client waits for 100 Continue."""
        raise NotImplementedError

    def slow(self) -> bool:
        """Whether the client takes no more bytes for now."""
        raise NotImplementedError

    def send_continue(self) -> None:
        """Pass on a 100 Continue."""
        raise NotImplementedError

    def choose_close(self, forced: bool) -> bool:
        """Decide, before the response's head is written, whether the connection ends after it."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send response bytes to the client."""
        raise NotImplementedError

    def cut(self) -> None:
        """Abort the client's connection."""
        raise NotImplementedError

    def attempt_over(self, attempt: Attempt) -> None:
        """The attempt under way ended; called once."""
        raise NotImplementedError

    def update_reading(self) -> None:
        """Something changed that may pause or resume the upload."""
        raise NotImplementedError
