import ast
from textwrap import dedent
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.compiled.direct_calls import PREFIX, with_constructors, with_direct_calls


def changed(**sources: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The changed sources, and each module's further declarations."""
    made = with_constructors({name: dedent(source) for name, source in sources.items()})
    texts, lines = with_direct_calls(made)
    return texts, {name: text.splitlines() for name, text in lines.items()}


class ConstructorTests(SynchronousTestCase):
    def test_does_what_init_does(self) -> None:
        """The object is of the class and has what ``__init__`` would have given it."""
        texts, _ = changed(
            one='''
            class Thing:
                def __init__(self, a, b=2, *, c="c"):
                    """See the class."""
                    self.a = a
                    self.b: int = b
                    self.c = self.d = c
            '''
        )
        names: dict[str, Any] = {}
        exec(texts["one"], names)
        thing, direct = names["Thing"](1, 3, c=4), names[f"{PREFIX}Thing"](1, 3, 4)
        self.assertIs(type(direct), names["Thing"])
        self.assertEqual(vars(direct), vars(thing))
        self.assertEqual(vars(names[f"{PREFIX}Thing"](1)), {"a": 1, "b": 2, "c": "c", "d": "c"})

    def test_which(self) -> None:
        """None for what needs its class, a scope of its own, parameters that C does not know or a
        default that may mean something else elsewhere; none without ``__init__``."""
        for init in (
            "def __init__(self): super().__init__()",
            "def __init__(self): self.a = lambda: 1",
            "def __init__(self, *a): pass",
            "def __init__(self, **a): pass",
            "def __init__(self, a, /): pass",
            "def __init__(self, *, a): pass",
            "def __init__(self, a=other()): pass",
            "def __init__(self): return",
            "def __init__(self): self.__a = 1",
            "async def __init__(self): pass",
            "@decorated\n    def __init__(self): pass",
            "a: int",
        ):
            source = f"class A:\n    {init}\n"
            self.assertEqual(changed(one=source)[0]["one"], source, init)
        decorated = "@decorated\nclass A:\n    def __init__(self): pass\n"
        self.assertEqual(changed(one=decorated)[0]["one"], decorated)


class CallTests(SynchronousTestCase):
    ONE = """
    class Thing:
        def __init__(self, a): self.a = a
    def made(thing: Thing) -> Thing: return Thing(1)
    def plain(a): return a
    """

    def test_calls(self) -> None:
        """Of a class and of a declared function of another module, under whatever name, in the
        lines in which they stood."""
        two = dedent(
            """
            from one import Thing as T, made, plain
            def f(a):
                other = "ä", made(T(made(a)))
                return other, plain(a), made
            """
        )
        texts, lines = changed(one=self.ONE, two=two)
        expected = two.replace("made(T(made(a)))", "_direct_made(_direct_T(_direct_made(a)))")
        self.assertEqual(texts["two"], expected)
        self.assertEqual(
            lines["two"],
            [
                "from one cimport _direct_Thing as _direct_T",
                "from one cimport made as _direct_made",
            ],
        )
        self.assertIn("return _direct_Thing(1)", texts["one"])
        self.assertEqual(lines["one"], [])

    def test_not(self) -> None:
        """Calls with keywords or any number of arguments stay; so does a name that the module sets
        itself, or that is not imported when it runs."""
        for body in (
            "from one import Thing\nx = Thing(a=1)",
            "from one import Thing\nx = Thing(*y)",
            "from one import Thing\nx = Thing(**y)",
            "from one import Thing\nx = Thing",
            "from one import made\nmade = made\nx = made(1)",
            "def f():\n    from one import made\n    return made(1)",
            "if TYPE_CHECKING:\n    from one import made\nx = made(1)",
            "import one\nx = one.made(1)",
        ):
            texts, lines = changed(one=self.ONE, two=body)
            self.assertEqual((texts["two"], lines["two"]), (body, []), body)

    def test_a_parameter_of_that_name(self) -> None:
        """A function may have a parameter of that name: then it is what is called."""
        body = "from one import made\ndef f(made):\n    return made(1)"
        self.assertEqual(changed(one=self.ONE, two=body)[0]["two"], body)

    def test_stays_python(self) -> None:
        """What comes out can be read."""
        for text in changed(one=self.ONE)[0].values():
            ast.parse(text)
