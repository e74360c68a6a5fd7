"""The wheel: built, installed in a new virtual environment beside Twisted, listed and started.

It is not compiled: that takes a minute, and tests run with what ``make compiled`` installs, too.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent
SOURCES = ("pbcluster", "twisted", "setup.py", "pyproject.toml", "README.rst", "LICENSE")
PLUGINS = ("pbcp", "pbnode", "pbgateway")
#: pip may have to fetch everything; the rest is local.
INSTALL_WITHIN_S = 300
RUN_WITHIN_S = 120


def run(
    *arguments: str | Path, cwd: Path, timeout_s: float = RUN_WITHIN_S
) -> subprocess.CompletedProcess[str]:
    """Run a command in an environment that does not lead back to the checkout."""
    keep = ("HOME", "LANG", "PATH", "TMPDIR", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "PIP_NO_INDEX")
    env = {name: os.environ[name] for name in keep if name in os.environ}
    env["PBCLUSTER_COMPILE"] = "never"
    return subprocess.run(
        [str(word) for word in arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class WheelTests(SynchronousTestCase):
    """One build and one installation for all tests of this class; they are what takes long."""

    installed: ClassVar[Path | None] = None
    wheel: ClassVar[Path]

    def setUp(self) -> None:
        self.work = Path(self.mktemp()).absolute()
        self.work.mkdir(parents=True)
        if WheelTests.installed is None:
            WheelTests.wheel = self.build()
            WheelTests.installed = self.install(WheelTests.wheel)
        self.bin = WheelTests.installed / "bin"

    def build(self) -> Path:
        # From a copy: what an earlier build left in the checkout must not get into the wheel.
        source = self.work / "source"
        source.mkdir()
        for name in SOURCES:
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "dropin.cache")
                shutil.copytree(ROOT / name, source / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, source / name)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps")
        out = self.work / "wheel"
        done = run(*pip, "--no-build-isolation", "-w", out, source, cwd=self.work)
        self.assertEqual(done.returncode, 0, done.stderr)
        (found,) = out.glob("pbcluster-*.whl")
        return found

    def install(self, wheel: Path) -> Path:
        home = self.work / "venv"
        venv.create(home, with_pip=True, symlinks=True)
        pip = (home / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install")
        done = run(*pip, "--no-compile", wheel, cwd=self.work, timeout_s=INSTALL_WITHIN_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        return home

    def test_contents(self) -> None:
        """The wheel holds package and plugin file, no tests, and no file that shadows Twisted."""
        names = zipfile.ZipFile(self.wheel).namelist()
        plugins = tuple(f"twisted/plugins/pbcluster_{name}.py" for name in ("plugins", "endpoints"))
        for wanted in ("pbcluster/py.typed", *plugins):
            self.assertIn(wanted, names)
        ours = ("pbcluster/", "pbcluster-", *plugins)
        self.assertEqual([name for name in names if not name.startswith(ours)], [])

    def test_plugins_are_listed(self) -> None:
        """twistd --help lists the three services, --help-reactors the reactor."""
        listed = run(self.bin / "twistd", "--help", cwd=self.work)
        for plugin in PLUGINS:
            self.assertRegex(listed.stdout, rf"(?m)^ +{plugin} ")
        reactors = run(self.bin / "twistd", "--help-reactors", cwd=self.work)
        self.assertIn("pbuvloop", reactors.stdout)

    def test_plugins_say_what_they_need(self) -> None:
        """Each plugin starts far enough to name the first setting that is missing."""
        for plugin in PLUGINS:
            found = run(
                *(self.bin / "twistd", "--nodaemon", "--pidfile=", "--reactor=pbuvloop", plugin),
                cwd=self.work,
            )
            self.assertNotEqual(found.returncode, 0)
            said = found.stdout + found.stderr
            self.assertIn("setting 'id' is missing", said)
            self.assertNotIn("Traceback", said)

    def test_unknown_file(self) -> None:
        """A configuration file that is not there is one sentence with its name."""
        for plugin in PLUGINS:
            command = (self.bin / "twistd", "--nodaemon", "--pidfile=", plugin)
            found = run(*command, "--config=/no/such/file.toml", cwd=self.work)
            self.assertNotEqual(found.returncode, 0)
            self.assertIn("cannot read /no/such/file.toml", found.stdout + found.stderr)

    def test_services_run(self) -> None:
        """A whole cluster starts from the installed wheel, shows itself, and stops."""
        home = self.work / "cluster"
        command = self.bin / "pbcluster"
        at = ("--dir", home)
        ports = ("--gateway-port", "0", "--admin-port", "0")
        self.addCleanup(run, command, "down", *at, cwd=self.work)
        done = run(command, "up", *at, *ports, "--detach", "--json", cwd=self.work)
        self.assertEqual(done.returncode, 0, done.stderr)
        shown = json.loads(run(command, "status", *at, "--json", cwd=self.work).stdout)
        self.assertEqual({row["state"] for row in shown["processes"]}, {"serving"})
        (leader,) = (row["id"] for row in shown["processes"] if row["leader"])
        self.assertIn(leader, ("member_1", "member_2", "member_3"))
        for row in shown["processes"]:
            environment = Path(f"/proc/{row['pid']}/environ").read_bytes()
            self.assertNotIn(str(ROOT).encode() + b"\0", environment)
        done = run(command, "down", *at, cwd=self.work)
        self.assertEqual(done.returncode, 0, done.stderr)
        for row in shown["processes"]:
            self.assertFalse(Path(f"/proc/{row['pid']}").exists(), row)
