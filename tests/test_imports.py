"""What import-linter cannot say: who may import the global reactor."""

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import pbcluster

PACKAGE = Path(pbcluster.__file__).parent
#: Taps are where a service meets its process; the reactor module installs it.
ALLOWED = {"reactor.py", "twistd.py", "controlplane/tap.py", "node/tap.py", "gateway/tap.py"}
#: A process of its own, for tests.
ALLOWED |= {"testing/http_server.py"}


def imports_reactor(source: str) -> bool:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
            if any(name.name == "reactor" for name in node.names):
                return True
        elif isinstance(node, ast.Import) and any(
            name.name == "twisted.internet.reactor" for name in node.names
        ):
            return True
    return False


class ReactorImportTests(SynchronousTestCase):
    def test_only_taps(self) -> None:
        """Only a tap obtains the reactor; everything else is given one."""
        found = {
            str(file.relative_to(PACKAGE))
            for file in PACKAGE.rglob("*.py")
            if imports_reactor(file.read_text(encoding="utf-8"))
        }
        self.assertEqual(found - ALLOWED, set())
        self.assertIn("reactor.py", found)

    def test_both_ways_are_seen(self) -> None:
        """The check knows both ways of importing it, and is not fooled by similar names."""
        self.assertTrue(imports_reactor("def f():\n from twisted.internet import defer, reactor"))
        self.assertTrue(imports_reactor("import twisted.internet.reactor"))
        self.assertFalse(imports_reactor("from twisted.internet import asyncioreactor"))
