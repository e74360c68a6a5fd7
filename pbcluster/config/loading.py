"""Reading settings: TOML file first, flags over it, checked once.

This module reads files when asked; it opens nothing else.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs

from pbcluster.config.checks import Setting, path
from pbcluster.config.service import ServiceConfig
from pbcluster.errors import ConfigError, InvalidInput

C = TypeVar("C", bound=ServiceConfig)


def settings_of(kind: type[ServiceConfig]) -> dict[str, tuple[Setting, Any]]:
    """Name → (its :class:`Setting`, its default or ``attrs.NOTHING``) of a settings class."""
    return {field.name: (field.metadata["setting"], field.default) for field in attrs.fields(kind)}


def load(kind: type[C], file: Path | None, flags: Mapping[str, Any] | None = None) -> C:
    """Read a service's settings.

    :param kind: the service's settings class.
    :param file: TOML file with the settings' names as keys, or None.
    :param flags: settings given on the command line; they win over the file. A relative path in
        the file is relative to the file's directory, in a flag to the current one.
    :raises ConfigError: unreadable file, unknown or missing setting, or a wrong value.
    """
    given: dict[str, tuple[Any, str]] = {}
    if file is not None:
        for name, value in read_toml(file).items():
            given[name] = (_rooted(kind, name, value, file.parent), f"in {file}")
    for name, value in (flags or {}).items():
        if value is not None:
            given[name] = (value, f"--{name.replace('_', '-')}")
    known = settings_of(kind)
    for name, (_, where) in given.items():
        if name not in known:
            raise ConfigError(
                f"unknown setting {name!r} {where}; known are: {', '.join(sorted(known))}"
            )
    return kind(**{name: _value(name, known[name], given.get(name)) for name in known})


def _rooted(kind: type[ServiceConfig], name: str, value: Any, root: Path) -> Any:
    field = settings_of(kind).get(name)
    if field is not None and field[0].check is path and isinstance(value, str):
        return str(root / Path(value).expanduser())
    return value


def _value(name: str, known: tuple[Setting, Any], given: tuple[Any, str] | None) -> Any:
    described, default = known
    if given is None:
        if default is attrs.NOTHING:
            raise ConfigError(
                f"setting {name!r} is missing: give --{name.replace('_', '-')} or put it into the "
                f"configuration file; allowed: {described.allowed}"
            )
        return described.check(default) if isinstance(default, str) else default
    value, where = given
    try:
        return described.check(value)
    except (ValueError, TypeError, KeyError, InvalidInput):
        raise ConfigError(
            f"setting {name!r} ({where}) is {value!r}; allowed: {described.allowed}"
        ) from None


def read_toml(file: Path) -> dict[str, Any]:
    """A TOML file as a dictionary.

    :raises ConfigError: it cannot be read or is no TOML.
    """
    try:
        with file.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None
