"""The unit files in the documentation: systemd accepts them, and what they start has such flags."""

import configparser
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.gateway.tap import Options
from tests.gateway.test_tap import write_files

UNITS = Path(__file__).parent.parent.parent / "docs" / "systemd"


class UnitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.files = sorted(UNITS.iterdir())
        self.assertEqual(len(self.files), 3)

    def test_flags(self) -> None:
        """Each ExecStart= is a command line that a gateway takes."""
        config = write_files(Path(self.mktemp()))
        for file in self.files:
            unit = configparser.RawConfigParser(strict=False)
            unit.optionxform = str  # type: ignore[assignment,method-assign]
            unit.read_string(file.read_text())
            if not unit.has_section("Service"):
                continue
            command = unit["Service"]["ExecStart"].replace(
                "/etc/pbcluster/gateway_1.toml", str(config)
            )
            before, _, flags = command.partition(" pbgateway ")
            self.assertIn("-m pbcluster.twistd --nodaemon", before)
            options = Options()
            options.parseOptions(flags.split())
            drains = options.parsed.config.drain_ready_s + options.parsed.config.drain_s
            self.assertGreater(float(unit["Service"]["TimeoutStopSec"]), drains)

    def test_systemd_accepts_them(self) -> None:
        """systemd-analyze finds nothing wrong with them, on this machine's own interpreter."""
        tool = shutil.which("systemd-analyze")
        if tool is None:
            raise SkipTest("needs systemd-analyze")
        where = Path(self.mktemp()).absolute()
        where.mkdir()
        for file in self.files:
            text = file.read_text().replace("/opt/pbcluster/bin/python", sys.executable)
            (where / file.name).write_text(re.sub(r"User=.*\n", "", text))
        names = [
            str(where / n) for n in ("pbgateway.socket", "pbgateway.service", "pbgateway@a.service")
        ]
        shutil.copy(where / "pbgateway@.service", where / "pbgateway@a.service")
        done = subprocess.run(
            [tool, "verify", "--man=no", *names],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"SYSTEMD_UNIT_PATH": f"{where}:", "PATH": "/usr/bin:/bin"},
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
