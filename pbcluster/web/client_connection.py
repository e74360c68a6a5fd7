"""The seam between an exchange (``exchange``) and its server connection."""

from __future__ import annotations

from pbcluster.web.closing import ClosingProtocol


class ClientConnection(ClosingProtocol):
    """What an exchange needs of its server connection. What it does is up to the class below it.

    :ivar slow: the client takes no more bytes for now.
    """

    def draining(self) -> bool:
        """Whether the connection is to end with this exchange."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send bytes."""
        raise NotImplementedError

    def cut(self) -> None:
        """Abort the connection."""
        raise NotImplementedError

    def exchange_over(self, keep: bool) -> None:
        """The response is complete; ``keep`` the connection or end it."""
        raise NotImplementedError

    def update_reading(self) -> None:
        """Pause or resume reading as the exchange now wants."""
        raise NotImplementedError

    def limit_body(self, max_bytes: int) -> None:
        """Change the bound of the current request's body."""
        raise NotImplementedError
