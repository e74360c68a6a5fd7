"""The scripts behind make: what they refuse, and that they cannot be fooled."""

import os
import re
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import procfs

CI = Path(__file__).parent.parent / ".ci"

Done = subprocess.CompletedProcess[str]

PASSED = "Ran {n} tests in 1.0s\n\nPASSED (successes={n})"


class ScriptTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.bin = Path(self.mktemp()).absolute()
        self.bin.mkdir(parents=True)

    def program(self, name: str, script: str) -> str:
        file = self.bin / name
        file.write_text("#!/bin/sh\n" + script)
        file.chmod(0o755)
        return str(file)

    def run_script(
        self, name: str, *arguments: str, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        path = f"{self.bin}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", str(CI / name), *arguments],
            cwd=cwd,
            env={"PATH": path, **env},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


class TrialTests(ScriptTestCase):
    def trial(self, output: str, status: int = 0, **env: str) -> Done:
        (self.bin / "output").write_text(output + "\n")
        fake = self.program("fake-python", f'cat "{self.bin}/output"; exit {status}\n')
        return self.run_script("trial", fake, "10", "tests", **env)

    def test_enough(self) -> None:
        """As many tests as the minimum pass, and their number is said."""
        done = self.trial(PASSED.format(n=10))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("10 tests ran", done.stdout)

    def test_too_few(self) -> None:
        """One fewer than the minimum fails, and so does trial's empty suite that says PASSED."""
        for output in (PASSED.format(n=9), "Ran 0 tests in 0.0s\n\nPASSED", "PASSED", ""):
            done = self.trial(output)
            self.assertEqual(done.returncode, 1, output)
            self.assertIn("at least 10", done.stderr)

    def test_trials_own_status(self) -> None:
        """trial's exit status is kept though its output goes through a pipe."""
        done = self.trial("Ran 50 tests in 1s\n\nFAILED (failures=1, successes=49)", status=3)
        self.assertEqual(done.returncode, 3)

    def test_skips(self) -> None:
        """Skips are told; with CI_NO_SKIPS=1 they fail."""
        output = "Ran 50 tests in 1s\n\nPASSED (skips=2, successes=48)"
        done = self.trial(output)
        self.assertEqual(done.returncode, 0)
        self.assertIn("2 of 50 tests were skipped", done.stdout)
        self.assertEqual(self.trial(output, CI_NO_SKIPS="1").returncode, 1)
        self.assertEqual(self.trial(PASSED.format(n=50), CI_NO_SKIPS="1").returncode, 0)


class CompiledTests(ScriptTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.checkout = self.bin / "checkout"
        for name in ("pbcluster", "twisted"):
            (self.checkout / name).mkdir(parents=True)
        for name in ("setup.py", "pyproject.toml", "pbcluster/one.py"):
            (self.checkout / name).touch()
        (self.checkout / ".ci").symlink_to(CI)

    def compiled(self, *arguments: str, **env: str) -> Done:
        """``.ci/compiled`` with a Python that only tells what it was asked for."""
        fake = self.program(
            "fake-python",
            """
            case "$*" in
                *Python.h*) [ "$HEADERS" != no ];;
                *sys.version*) echo "$VERSION";;
                *get_config_var*) echo "no-such-compiler";;
                *pip*) echo pip "$PBCLUSTER_COMPILE"; mkdir -p made; exit ${PIP:-0};;
                *) echo "path $PYTHONPATH, $PYTHONSAFEPATH, $PBCLUSTER_EXPECT_COMPILED, $*"
                   printf "Ran 9 tests in 1.0s\\n\\nPASSED (successes=9)\\n";;
            esac
            """,
        )
        env = {"CC": "true", **env}
        return self.run_script("compiled", fake, "made", *arguments, cwd=self.checkout, **env)

    def test_made_once(self) -> None:
        """It is installed, with its modules compiled or not at all; again only if the sources,
        Python or Cython are others, or if it failed."""
        self.assertNotEqual(self.compiled(PIP="3").returncode, 0)
        for version, again in (("1", True), ("1", False), ("2", True)):
            done = self.compiled(VERSION=version)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual("pip always" in done.stdout, again, version)
        for change in ("new", "gone"):
            source = self.checkout / "pbcluster" / "two.py"
            source.touch() if change == "new" else source.unlink()
            self.assertIn("pip always", self.compiled(VERSION="2").stdout, change)
            self.assertNotIn("pip", self.compiled(VERSION="2").stdout, change)

    def test_tests_run_with_it(self) -> None:
        """The tests find it before the checkout, and hear that it must be compiled; too few of
        them fail as ever."""
        done = self.compiled("9", "tests.some")
        self.assertEqual(done.returncode, 0, done.stderr)
        path = f"{self.checkout}/made:{self.checkout}"
        self.assertIn(f"path {path}, 1, 1, -m twisted.trial tests.some", done.stdout)
        self.assertEqual(self.compiled("10", "tests.some").returncode, 1)

    def test_what_is_missing(self) -> None:
        """Without a compiler or headers that is said, and the tests run with the checkout; not if
        no skip is allowed, nor if it is to be made and not only tested."""
        for env, word in (
            ({"CC": "no-such-one -O2"}, "no C compiler (no-such-one)"),
            ({"CC": ""}, "no C compiler (no-such-compiler)"),
            ({"HEADERS": "no"}, "no headers of Python"),
        ):
            done = self.compiled("9", "tests.some", **env)
            self.assertEqual(done.returncode, 0)
            self.assertIn(word, done.stderr)
            self.assertIn("not compiled", done.stdout)
            self.assertIn("path , , , -m twisted.trial tests.some", done.stdout)
            self.assertEqual(self.compiled("9", CI_NO_SKIPS="1", **env).returncode, 1)
            self.assertEqual(self.compiled(**env).returncode, 1)


class BesideTests(ScriptTestCase):
    def beside(self, background: str, foreground: str) -> Done:
        return self.run_script("beside", background, foreground)

    def test_both_succeed(self) -> None:
        """The output of the one in the background comes last, at whatever time it was written."""
        done = self.beside("echo one", "sleep 0.2; echo two")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.splitlines()[1:], ["two", "one"])

    def test_the_background_fails(self) -> None:
        """Its status is kept, and what it said is shown."""
        done = self.beside("sleep 0.2; echo broken; exit 3", "echo two")
        self.assertEqual((done.returncode, done.stdout.splitlines()[1:]), (3, ["two", "broken"]))

    def test_the_foreground_fails(self) -> None:
        """Its status is kept, and the other is ended with all of its processes."""
        file = self.bin / "pid"
        done = self.beside(
            f"sh -c 'echo $$ >{file}; exec sleep 60'; true",
            f"until [ -s {file} ]; do sleep 0.1; done; exit 4",
        )
        self.assertEqual(done.returncode, 4)
        left = procfs.identify(int(file.read_text()))
        self.assertEqual(procfs.wait_gone([left] if left else [], 5.0), [])


class PreflightTests(ScriptTestCase):
    def refused(self, python: str) -> str:
        done = self.run_script("preflight", python)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
        return done.stderr

    def python(self, version: str, has_venv: bool = True) -> str:
        status = int(not has_venv)
        script = f"case $2 in *version_info*) printf {version};; *) exit {status};; esac"
        return self.program("fake-python", script)

    def test_fine(self) -> None:
        """A new enough Python with venv passes without a word."""
        for version in ("3.11", "3.14"):
            done = self.run_script("preflight", self.python(version))
            self.assertEqual((done.returncode, done.stdout + done.stderr), (0, ""))

    def test_old_python(self) -> None:
        """An old Python is one sentence that says what is needed."""
        for version in ("2.7", "3.10"):
            text = self.refused(self.python(version))
            self.assertIn(f"Python {version}, and 3.11 or newer is needed", text)

    def test_no_venv(self) -> None:
        """A missing venv module is one sentence that names Debian's package."""
        self.assertIn("python3.11-venv", self.refused(self.python("3.11", has_venv=False)))

    def test_no_python(self) -> None:
        """No Python, or one that does not run, is one sentence."""
        self.assertIn("there is no /no/such/python", self.refused("/no/such/python"))
        self.assertIn("does not run", self.refused(self.program("fake-python", "exit 1")))

    def test_other_system(self) -> None:
        """Another system than Linux is one sentence that names it."""
        self.program("uname", "echo Darwin")
        self.assertIn("Darwin", self.refused(self.python("3.11")))


class FoundTests(SynchronousTestCase):
    def test_make_finds_every_test(self) -> None:
        """Each module is in one of the two lists that ``make test`` runs."""
        root = CI.parent
        told = subprocess.run(
            ["make", "-pn", "help"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        assigned = dict(line.split(" = ", 1) for line in told.splitlines() if " = " in line)
        patterns = re.findall(r"tests/\S*test_\*\.py", assigned["TEST_MODULES"])
        listed = {file for pattern in patterns for file in root.glob(pattern)}
        self.assertEqual(listed, set((root / "tests").rglob("test_*.py")))
