"""Reads a member's or node's secrets and peers again (SIGHUP) and uses them: all of it, or nothing.

Keys are exchanged so, without a restart. Everything is read and checked as at the start; what is
wrong leaves the former keys in use, with one line in the log and ``secrets_reload_failed`` at 1.
Settings of the configuration file are read too, to be checked, and not used: they need a restart.
Gateways have ``gateway.reloading``, which also takes settings over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic

from twisted.logger import Logger

from pbcluster.errors import PBClusterError
from pbcluster.options import C, Parsed

log = Logger()


class Rereading(Generic[C]):
    """See the module.

    :ivar done: how often what was read is used. :ivar failed: whether the last time it was not.
    """

    def __init__(self, read: Callable[[], Parsed[C]], use: Callable[[Parsed[C]], None]) -> None:
        """
        :param read: reads and checks everything. :raises PBClusterError: what is wrong.
        :param use: takes it over. :raises PBClusterError: it cannot; nothing was changed.
        """
        self.done = 0
        self.failed = False
        self._read = read
        self._use = use

    def reload(self) -> bool:
        """Do it. :returns: whether what stands in the files is used now."""
        try:
            self._use(self._read())
        except PBClusterError as error:
            self.failed = True
            log.error("the former keys stay in use: {reason}", reason=error.message)
            return False
        self.done += 1
        self.failed = False
        log.info("secrets and peers were read again")
        return True

    def figures(self) -> dict[str, float]:
        """For the metrics listener."""
        return {"secrets_reloads": self.done, "secrets_reload_failed": self.failed}
