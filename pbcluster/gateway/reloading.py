"""Reads the configuration again (SIGHUP) and applies it: all of it, or nothing.

Everything is read and checked first, as at the start. Then each part *prepares*: it loads what it
needs and may refuse. Only when all agreed, each *commits*, which cannot fail. After any refusal
every part goes on as it was, with one line in the log and ``config_reload_failed`` at 1.

A setting that no part applies live keeps its old value; if it changed, the log says that it needs a
restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import attrs
from twisted.logger import Logger

from pbcluster.config import GatewayConfig, settings_of
from pbcluster.errors import PBClusterError
from pbcluster.options import Parsed

#: Takes over what was prepared; must not fail.
Commit = Callable[[], None]

log = Logger()


class Reloadable(Protocol):
    """A part of the gateway that takes new settings while it runs."""

    @property
    def live(self) -> frozenset[str]:
        """Names of the settings that it applies."""

    def prepare(self, parsed: Parsed[GatewayConfig]) -> Commit:
        """Check new settings and load what they name, changing nothing yet.

        :raises PBClusterError: they cannot be used; says why.
        """


@attrs.frozen
class Applies:
    """A part for which checked values are all it needs."""

    live: frozenset[str]
    commit: Callable[[Parsed[GatewayConfig]], None]

    def prepare(self, parsed: Parsed[GatewayConfig]) -> Commit:
        """As :meth:`Reloadable.prepare`."""
        return lambda: self.commit(parsed)


class Reloading:
    """See the module.

    :ivar current: the settings in use. :ivar done: reloads that were applied.
    :ivar failed: whether the last one was not.
    """

    def __init__(
        self, current: Parsed[GatewayConfig], read: Callable[[], Parsed[GatewayConfig]]
    ) -> None:
        """
        :param read: reads and checks everything. :raises PBClusterError: what is wrong.
        """
        self.current = current
        self.done = 0
        self.failed = False
        self._read = read
        self._parts: list[Reloadable] = []

    def register(self, part: Reloadable) -> None:
        """``part`` takes part from now on."""
        self._parts.append(part)

    def apply(self, live: Iterable[str], commit: Callable[[Parsed[GatewayConfig]], None]) -> None:
        """Register a part for which checked values are all it needs."""
        self.register(Applies(frozenset(live), commit))

    def reload(self) -> bool:
        """Do it. :returns: whether the new settings hold now."""
        try:
            parsed = self._read()
            commits = [part.prepare(parsed) for part in self._parts]
        except PBClusterError as error:
            self._refused(error.message)
            return False
        except Exception as error:
            log.failure("reading the configuration again failed")
            self._refused(type(error).__name__)
            return False
        for commit in commits:
            try:
                commit()
            except Exception:
                log.failure("a part of the gateway failed to apply its new settings")
        self._tell(parsed.config)
        self.done += 1
        self.failed = False
        return True

    def _refused(self, reason: str) -> None:
        self.failed = True
        log.error(
            "the configuration was read again and is not used, the former one stays: {reason}",
            reason=reason,
        )

    def _tell(self, new: GatewayConfig) -> None:
        old = self.current.config
        live = frozenset[str]().union(*(part.live for part in self._parts))
        changed = [
            name for name in settings_of(type(new)) if getattr(new, name) != getattr(old, name)
        ]
        held = [name for name in changed if name not in live]
        applied = [name for name in changed if name in live]
        kept = {name: getattr(old, name) for name in held}
        self.current = attrs.evolve(self.current, config=attrs.evolve(new, **kept))
        log.info(
            "the configuration was read again; changed: {applied}",
            applied=", ".join(applied) or "nothing",
        )
        if held:
            log.warn("these changes need a restart: {held}", held=", ".join(held))
