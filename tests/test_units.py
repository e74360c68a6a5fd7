"""The unit files in the documentation: systemd accepts them, and what they start has such flags.

That what they start really starts, and tells systemd so, is in ``tests/integration/test_units.py``.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.controlplane import tap as member_tap
from pbcluster.gateway import tap as gateway_tap
from pbcluster.node import tap as node_tap
from tests import unit_files
from tests.gateway.test_tap import write_files

OPTIONS = {"pbcp": member_tap, "pbnode": node_tap, "pbgateway": gateway_tap}


class UnitTests(SynchronousTestCase):
    def test_all_are_looked_at(self) -> None:
        """A unit of each service, and the socket of the gateway."""
        names = [file.name for file in unit_files.files()]
        self.assertEqual(
            names,
            [
                "pbcp@.service",
                "pbgateway.service",
                "pbgateway.socket",
                "pbgateway@.service",
                "pbnode@.service",
            ],
        )

    def test_flags(self) -> None:
        """Each ExecStart= is a command line that its service knows, and each unit waits until the
        service says that it serves."""
        for unit in unit_files.services().values():
            words = unit.settings["ExecStart"].split()
            plugin = next(word for word in words if word in OPTIONS)
            place = words.index(plugin)
            self.assertEqual(
                words[1:place],
                ["-m", "pbcluster.twistd", "--nodaemon", "--pidfile=", "--reactor=pbuvloop"],
            )
            known = {f"--{word.rstrip('=')}" for word in OPTIONS[plugin].Options().longOpt}
            for word in words[place + 1 :]:
                self.assertIn(word.partition("=")[0], known)
            self.assertEqual(unit.settings["Type"], "notify", unit.name)
            self.assertEqual(unit.settings["KillMode"], "mixed", unit.name)

    def test_gateways_have_time_to_drain(self) -> None:
        """TimeoutStopSec= is longer than the defaults of drain_ready_s and drain_s together."""
        config = write_files(Path(self.mktemp()))
        options = gateway_tap.Options()
        options.parseOptions([f"--config={config}"])
        drains = options.parsed.config.drain_ready_s + options.parsed.config.drain_s
        for name, unit in unit_files.services().items():
            if name.startswith("pbgateway"):
                self.assertGreater(unit.stops_within_s, drains)

    def test_systemd_accepts_them(self) -> None:
        """systemd-analyze finds nothing wrong with them, on this machine's own interpreter."""
        tool = shutil.which("systemd-analyze")
        if tool is None:
            raise SkipTest("needs systemd-analyze")
        where = Path(self.mktemp()).absolute()
        where.mkdir()
        names = []
        for file in unit_files.files():
            text = re.sub(r"User=.*\n", "", file.read_text())
            text = text.replace(unit_files.PYTHON, sys.executable)
            (where / file.name).write_text(text)
            instance = where / file.name.replace("@.", "@a.")
            instance.write_text(text)
            names.append(str(instance))
        done = subprocess.run(
            [tool, "verify", "--man=no", *names],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"SYSTEMD_UNIT_PATH": f"{where}:", "PATH": "/usr/bin:/bin"},
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
