"""Where the record of a request goes when it is over: to the figures and to the access log."""

from __future__ import annotations

from pbcluster.gateway.access_log import AccessLog
from pbcluster.gateway.figures import Figures
from pbcluster.gateway.parts import Record


class Telling:
    """See the module."""

    def __init__(self, figures: Figures, access: AccessLog | None) -> None:
        """
        :param access: None: nothing is logged.
        """
        self._figures = figures
        self._access = access

    def over(self, record: Record) -> None:
        """A request is over."""
        self._figures.over(record)
        if self._access is not None:
            self._access.add(record)
