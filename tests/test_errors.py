"""Errors cross process borders and stay what they are."""

import importlib
import pkgutil

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import pbcluster
from pbcluster import errors
from pbcluster.wire import ErrorReply


def every_class(root: type[errors.PBClusterError]) -> list[type[errors.PBClusterError]]:
    found = [root]
    for child in root.__subclasses__():
        found.extend(every_class(child))
    return found


class ErrorTests(SynchronousTestCase):
    def test_codes_are_unique(self) -> None:
        """Two classes never share a code, whatever module they stand in."""
        for module in pkgutil.walk_packages(pbcluster.__path__, "pbcluster."):
            if not module.name.endswith((".__main__", ".reactor")):
                importlib.import_module(module.name)
        codes = [cls.code for cls in every_class(errors.PBClusterError)]
        self.assertEqual(sorted(codes), sorted(set(codes)))

    def test_each_class_survives_the_wire(self) -> None:
        """Every class of the tree comes back as itself, with its sentence and details."""
        own = [
            cls for cls in every_class(errors.PBClusterError) if cls.__module__ == errors.__name__
        ]
        for cls in own:
            error = cls("it went wrong", detail=7)
            back = ErrorReply.of(error).exception()
            self.assertIs(type(back), cls)
            self.assertEqual((str(back), back.data["detail"]), ("it went wrong", 7))

    def test_retry_after_survives_the_wire(self) -> None:
        """An Unavailable keeps its retry time, and has one even if the peer sent none."""
        back = ErrorReply.of(errors.Busy("full", retry_after_s=2.5)).exception()
        assert isinstance(back, errors.Unavailable)
        self.assertEqual(back.retry_after_s, 2.5)
        bare = errors.from_code("busy", "full")
        assert isinstance(bare, errors.Unavailable)
        self.assertEqual(bare.retry_after_s, 1.0)

    def test_foreign_exception_shows_no_detail(self) -> None:
        """What an unexpected exception says stays in this process."""
        reply = ErrorReply.of(ValueError("password=hunter2"))
        self.assertEqual(reply.code, "internal")
        self.assertNotIn("hunter2", reply.message)

    @given(st.text(max_size=20))
    def test_unknown_code_is_a_plain_error(self, code: str) -> None:
        """A newer peer's unknown code cannot crash an older process."""
        self.assertIsInstance(errors.from_code(code, "x"), errors.PBClusterError)
