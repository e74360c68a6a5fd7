"""Builds pbcluster; where Cython and a C compiler are there, with its hot modules compiled.

All that is constant stands in ``pyproject.toml``. Here is only what cannot: which modules are
translated stands in ``pbcluster.compiled``, and whether they are depends on where this runs.
``PBCLUSTER_COMPILE=never`` leaves them as they are, ``always`` fails where they cannot be compiled;
else a build that cannot says so (pip shows it with ``-v``) and goes on without; its wheel is for
this Python all the same. An editable installation is never compiled: what was edited would not be
what runs.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
# A build backend does not look for modules beside this file.
sys.path.insert(0, str(ROOT))

from pbcluster.compiled import MODULES  # noqa: E402
from pbcluster.compiled.declarations import NotDeclarable, declarations  # noqa: E402
from pbcluster.compiled.direct_calls import with_constructors, with_direct_calls  # noqa: E402

WHEN = ("always", "auto", "never")
#: Processes at once; one takes some 200 MB.
AT_ONCE = min(8, len(os.sched_getaffinity(0)))
#: Debug information would make the build slower and the result six times as large. Without -fno-plt
#: each of the many calls of Python's functions takes a detour.
FLAGS = ["-O2", "-g0", "-fno-plt"]
DIRECTIVES = {
    "language_level": "3",
    # What an annotation declares stands in ``declarations``; floats and ints are Python's.
    "annotation_typing": False,
    "auto_pickle": False,
    # None where an object is expected is an error, as in Python, not a crash.
    "nonecheck": True,
}

log = logging.getLogger("pbcluster.build")


def when() -> str:
    """``PBCLUSTER_COMPILE``.

    :raises SystemExit: it is no word that is known.
    """
    word = os.environ.get("PBCLUSTER_COMPILE", "auto")
    if word not in WHEN:
        raise SystemExit(f"PBCLUSTER_COMPILE is {word!r}: allowed are {', '.join(WHEN)}")
    return word


def path_of(module: str) -> Path:
    """Where a module stands, from the root."""
    return Path(*module.split(".")).with_suffix(".py")


def translated(directory: Path) -> list[Path]:
    """The C files of all modules, made below ``directory``."""
    from Cython.Build import cythonize

    sources = with_constructors({name: (ROOT / path_of(name)).read_text() for name in MODULES})
    declared = declarations(sources)
    sources, imports = with_direct_calls(sources)
    shutil.rmtree(directory, ignore_errors=True)
    for module, source in sources.items():
        copy = directory / path_of(module)
        copy.parent.mkdir(parents=True, exist_ok=True)
        for package in path_of(module).parents:
            (directory / package / "__init__.py").touch()
        copy.write_text(source)
        if module in declared:
            copy.with_suffix(".pxd").write_text(imports[module] + declared[module])
    # From there, so that a traceback names a file as it is found in an installation.
    with contextlib.chdir(directory):
        made = cythonize(
            [Extension(module, [str(path_of(module))]) for module in MODULES],
            compiler_directives=DIRECTIVES,
            nthreads=AT_ONCE,
            quiet=True,
        )
    paths = [directory / each.sources[0] for each in made]
    for path in paths:
        # Cython would forget whose method it is.
        if "__Pyx_CFunc_" in path.read_text():
            raise NotDeclarable(
                f"{path}: a method of another module's class is handed on: give a lambda instead"
            )
    return paths


class BuildHotModules(build_ext):
    """Compiles all modules, or none."""

    def run(self) -> None:
        """See ``PBCLUSTER_COMPILE``."""
        if self.editable_mode or self.inplace:
            self.extensions = []
            return
        # What an earlier build left there would be packed too, and found before the sources.
        for left in Path(self.build_lib, "pbcluster").rglob("*.so"):
            left.unlink()
        self.parallel = self.parallel or AT_ONCE
        try:
            super().run()
        except (Exception, SystemExit) as error:
            if when() == "always":
                raise
            log.warning("pbcluster is not compiled, it will be slower: %s", error)
            for path in map(Path, self.get_outputs()):
                path.unlink(missing_ok=True)
            self.extensions = []

    def build_extensions(self) -> None:
        """Translate, then compile."""
        sources = translated(Path(self.build_temp).resolve() / "translated")
        for extension, source in zip(self.extensions, sources, strict=True):
            extension.sources = [str(source)]
            extension.extra_compile_args = FLAGS
        super().build_extensions()


if __name__ == "__main__":
    hot = () if when() == "never" else MODULES
    setup(
        ext_modules=[Extension(module, [str(path_of(module))]) for module in hot],
        cmdclass={"build_ext": BuildHotModules},
    )
