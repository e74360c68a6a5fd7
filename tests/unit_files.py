"""The unit files in docs/systemd, as values: what they start, with which signals and times."""

from __future__ import annotations

import configparser
import shlex
import signal
import sys
from pathlib import Path

import attrs

UNITS = Path(__file__).parent.parent / "docs" / "systemd"
PYTHON = "/opt/pbcluster/bin/python"
ETC = "/etc/pbcluster"


@attrs.frozen
class Unit:
    """One service unit.

    :ivar settings: its section ``[Service]``.
    """

    name: str
    settings: dict[str, str]

    def argv(self, instance: str, configurations: Path) -> list[str]:
        """Its ExecStart=, with this interpreter and the configuration files of a directory."""
        command = self.settings["ExecStart"].replace("%i", instance)
        return shlex.split(
            command.replace(PYTHON, sys.executable).replace(ETC, str(configurations))
        )

    @property
    def kill_signal(self) -> signal.Signals:
        """KillSignal=, with systemd's default."""
        return signal.Signals[self.settings.get("KillSignal", "SIGTERM")]

    @property
    def stops_within_s(self) -> float:
        """TimeoutStopSec=."""
        return float(self.settings["TimeoutStopSec"])


def files() -> list[Path]:
    """All unit files."""
    return sorted(UNITS.iterdir())


def services() -> dict[str, Unit]:
    """The service units by their names."""
    found = {}
    for file in files():
        unit = configparser.RawConfigParser(strict=False)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(file.read_text())
        if unit.has_section("Service"):
            found[file.name] = Unit(file.name, dict(unit["Service"]))
    return found
