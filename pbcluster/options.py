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
class Given:
    """What the command line said.

    :ivar file: the configuration file, absolute. :ivar flags: settings that were given as flags.
    """

    file: Path | None
    flags: dict[str, str]

    def arguments(self) -> list[str]:
        """As they would stand on a command line."""
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self.flags.items()]
        return [*([f"--config={self.file}"] if self.file is not None else []), *flags]


@attrs.frozen
class Parsed(Generic[C]):
    """What a service starts from, and what it was read from."""

    config: C
    secrets: Secrets
    peers: dict[str, Peer]
    given: Given | None = None

    def again(self) -> Parsed[C]:
        """The same files and flags, read as they are now.

        :raises ConfigError: something is wrong with them.
        """
        if self.given is None:
            return self
        return read(type(self.config), self.given)

    def arguments(self) -> list[str]:
        """The arguments that say the same to another process of this service."""
        if self.given is None:
            return []
        return self.given.arguments()


def read(kind: type[C], given: Given) -> Parsed[C]:
    """Load and check everything.

    :raises ConfigError: something is wrong; says what, where and what is allowed.
    """
    loaded = load(kind, given.file, given.flags)
    secrets, peers = load_secrets(loaded.secrets_file), load_peers(loaded.peers_file)
    return Parsed(loaded, secrets, peers, given)


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
        from pbcluster import compiled

        print(f"pbcluster {compiled.version()}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Load and check everything; the result is ``self.parsed``."""
        values = {name: self[name.replace("_", "-")] for name in settings_of(self.kind)}
        flags = {name: value for name, value in values.items() if value is not None}
        file = Path(self["config"]).absolute() if self["config"] else None
        try:
            self.parsed = read(self.kind, Given(file, flags))
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
