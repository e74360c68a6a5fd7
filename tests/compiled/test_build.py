"""What ``setup.py`` does where it can compile, where it cannot, and where it may not.

The translation itself takes a minute and is what ``make compiled`` does; here a stand-in for Cython
gives modules that are compiled at once. The compiler, pip and setuptools are real.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from textwrap import dedent
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.compiled import MODULES

ROOT = Path(__file__).parent.parent.parent
NEEDED = ("setup.py", "pyproject.toml", "README.rst", "LICENSE")
#: Beside all other tests, at the lowest priority.
WITHIN_S = 300

CAN_COMPILE = subprocess.run(
    ("sh", ROOT / ".ci" / "can-compile", sys.executable), capture_output=True, check=False
)
needs_compiler = skipIf(CAN_COMPILE.returncode, CAN_COMPILE.stderr.decode().strip())


#: Each module becomes one that has nothing in it.
CYTHON = '''
from pathlib import Path

def cythonize(extensions, **options):
    for extension in extensions:
        (source,) = map(Path, extension.sources)
        name = extension.name.rpartition(".")[2]
        text = """
            #include <Python.h>
            static PyModuleDef module = {PyModuleDef_HEAD_INIT, "NAME"};
            PyMODINIT_FUNC PyInit_NAME(void) { return PyModuleDef_Init(&module); }
        """
        made = source.with_suffix(".c")
        made.write_text(text.replace("NAME", name))
        extension.sources = [str(made)]
    return extensions
'''


class BuildTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.work = Path(self.mktemp()).absolute()
        self.source = self.work / "source"
        self.source.mkdir(parents=True)
        ignored = shutil.ignore_patterns("__pycache__", "dropin.cache", "testing", "controlplane")
        for name in ("pbcluster", "twisted"):
            shutil.copytree(ROOT / name, self.source / name, ignore=ignored)
        for name in NEEDED:
            shutil.copy(ROOT / name, self.source / name)

    def cython(self, text: str) -> None:
        """Stands where Cython is looked for."""
        package = self.work / "path" / "Cython"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "Build.py").write_text(text)

    def compiler(self, script: str) -> dict[str, str]:
        """Stands where the compiler is looked for; the real one is ``$REAL``."""
        file = self.work / "cc"
        file.write_text(f"#!/bin/sh\nREAL=cc\n{dedent(script)}")
        file.chmod(0o755)
        return {"CC": str(file), "LDSHARED": f"{file} -shared"}

    def wheel(self, when: str | None, **env: str) -> tuple[subprocess.CompletedProcess[str], Path]:
        """Build one; gives what was said, and where it is to be found."""
        out = self.work / "wheel"
        env = {**os.environ, "PYTHONPATH": str(self.work / "path"), **env}
        env.pop("PBCLUSTER_COMPILE", None)
        if when is not None:
            env["PBCLUSTER_COMPILE"] = when
        pip = (sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "-v", "wheel")
        wheel = (*pip, "--no-deps", "--no-build-isolation", "-w", str(out), str(self.source))
        return self.run_in(self.work, env, *wheel), out

    def run_in(
        self, directory: Path, env: dict[str, str], *command: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=directory,
            env=env,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )

    def compiled_in(self, out: Path) -> list[str]:
        """The modules of the wheel that are compiled."""
        (wheel,) = out.glob("pbcluster-*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        self.assertEqual([name for name in names if name.endswith((".c", ".pxd"))], [])
        self.assertIn("pbcluster/web/attempt.py", names)
        return sorted(
            name.partition(".")[0].replace("/", ".") for name in names if name.endswith(".so")
        )

    @needs_compiler
    def test_compiled(self) -> None:
        """Where it can be done, all modules are compiled, and lie beside their sources."""
        self.cython(CYTHON)
        done, out = self.wheel(None)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.compiled_in(out), list(MODULES))

    def test_no_cython(self) -> None:
        """Without Cython nothing is compiled, and the build says so and why."""
        self.cython("raise ImportError('Cython is broken here')")
        done, out = self.wheel(None)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.compiled_in(out), [])
        said = done.stdout + done.stderr
        self.assertIn("not compiled, it will be slower: Cython is broken here", said)

    @needs_compiler
    def test_all_or_none(self) -> None:
        """A compiler that fails at one module leaves none of them compiled."""
        self.cython(CYTHON)
        linked = self.work / "linked"
        failing = self.compiler(
            f"""
            case "$*" in *-shared*)
                echo "$*" >>"{linked}"
                [ $(wc -l <"{linked}") -lt 9 ] || exit 1;;
            esac
            exec $REAL "$@"
            """
        )
        done, out = self.wheel(None, **failing)
        self.assertGreaterEqual(linked.read_text().count("\n"), 9)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.compiled_in(out), [])
        self.assertIn("not compiled, it will be slower", done.stdout + done.stderr)

    def test_always(self) -> None:
        """Who asks for it always gets an error where it cannot be done."""
        self.cython("raise ImportError('Cython is broken here')")
        done, out = self.wheel("always")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("Cython is broken here", done.stdout + done.stderr)
        self.assertEqual(list(out.glob("*.whl")), [])

    def test_method_without_its_object(self) -> None:
        """Cython makes a method that is handed on into a function without its object, if it is one
        of another module's class: no such build is used."""
        self.cython(CYTHON.replace("#include", "/* __Pyx_CFunc_of_something */\n#include"))
        done, out = self.wheel("always")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("a method of another module's class is handed on", done.stdout + done.stderr)
        self.assertEqual(list(out.glob("*.whl")), [])

    def test_never(self) -> None:
        """Who asks for none gets none, and nothing is said of it."""
        self.cython(CYTHON)
        done, out = self.wheel("never")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(self.compiled_in(out), [])
        self.assertNotIn("slower", done.stdout + done.stderr)

    @needs_compiler
    def test_after_another(self) -> None:
        """What an earlier build in the same place compiled is not packed again: neither if nothing
        is to be compiled now, nor if it cannot be, nor if a module is not compiled any more."""
        self.cython(CYTHON)
        modules = self.source / "pbcluster" / "compiled" / "__init__.py"
        for when, change, expected in (
            (None, "", list(MODULES)),
            ("never", "", []),
            (None, '    "pbcluster.rates",\n', [m for m in MODULES if m != "pbcluster.rates"]),
        ):
            modules.write_text(modules.read_text().replace(change, ""))
            shutil.rmtree(self.work / "wheel", ignore_errors=True)
            done, out = self.wheel(when)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertEqual(self.compiled_in(out), expected)

    def test_in_place(self) -> None:
        """What is used where it stands, as in an editable installation, is not compiled."""
        self.cython(CYTHON)
        env = {**os.environ, "PYTHONPATH": str(self.work / "path")}
        command = (sys.executable, "setup.py", "-q", "build_ext", "--inplace")
        done = self.run_in(self.source, env, *command)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(list(self.source.rglob("*.so")), [])

    def test_another_word(self) -> None:
        """Any other word is refused with the allowed ones."""
        done, _ = self.wheel("maybe")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(
            "PBCLUSTER_COMPILE is 'maybe': allowed are always, auto, never",
            done.stdout + done.stderr,
        )
