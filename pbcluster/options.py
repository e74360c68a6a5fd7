"""``twistd`` options made from a settings class, so that flags and settings cannot drift apart.

:func:`make_options` gives the ``usage.Options`` of one service: ``--config FILE`` and one flag for
each setting of ``pbcluster.config``. Whatever is wrong ends in one clear sentence
(``usage.UsageError``), never in a traceback. Nothing is opened but the files that are read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

import attrs
from twisted.python import usage

from pbcluster.config import (
    Peer,
    Secrets,
    ServiceConfig,
    load,
    load_peers,
    load_secrets,
    settings_of,
)
from pbcluster.errors import ConfigError

C = TypeVar("C", bound=ServiceConfig)


@attrs.frozen
class Parsed(Generic[C]):
    """What a service starts from."""

    config: C
    secrets: Secrets
    peers: dict[str, Peer]


def _shown(default: Any) -> str:
    if default is attrs.NOTHING:
        return "required"
    if isinstance(default, tuple):
        return f"default: {','.join(map(str, default)) or 'none'}"
    return f"default: {default if default not in ('', None) else 'none'}"


def _parameters(kind: type[ServiceConfig]) -> list[list[Any]]:
    rows: list[list[Any]] = [["config", "c", None, "TOML file with the settings below as keys."]]
    for name, (described, default) in settings_of(kind).items():
        text = f"{described.help}; {described.allowed} ({_shown(default)})."
        rows.append([name.replace("_", "-"), None, None, text[0].upper() + text[1:]])
    return rows


class ServiceOptions(usage.Options):
    """Flags of one service; ``kind`` is its settings class."""

    kind: type[ServiceConfig] = ServiceConfig
    parsed: Parsed[Any]

    def opt_version(self) -> None:
        """Show the version and exit."""
        from pbcluster import __version__

        print(f"pbcluster {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Load and check everything; the result is ``self.parsed``."""
        flags = {name: self[name.replace("_", "-")] for name in settings_of(self.kind)}
        file = Path(self["config"]) if self["config"] else None
        try:
            loaded = load(self.kind, file, flags)
            self.parsed = Parsed(
                loaded,
                load_secrets(loaded.secrets_file),
                load_peers(loaded.peers_file),
            )
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


def make_options(settings: type[ServiceConfig], summary: str) -> type[ServiceOptions]:
    """The Options class of a service.

    :param settings: its settings class.
    :param summary: what the service is, for ``--help``.
    """

    class Options(ServiceOptions):
        kind = settings
        optParameters = _parameters(settings)
        longdesc = summary

    return Options
