from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.compiled import MODULES
from pbcluster.compiled.declarations import NotDeclarable, declarations

ROOT = Path(__file__).parent.parent.parent


def declared(**sources: str) -> dict[str, list[str]]:
    """Module → its declarations, line by line."""
    texts = declarations({name: dedent(source) for name, source in sources.items()})
    return {name: text.rstrip("\n").split("\n") for name, text in texts.items()}


class AttributeTests(SynchronousTestCase):
    def test_all_that_is_assigned(self) -> None:
        """Whatever is assigned to self anywhere is an attribute, once, in the order of the source;
        what only other objects get is none."""
        found = declared(
            one='''
            class A:
                """See the module."""

                said: int

                def __init__(self, other):
                    self.first = self.second = 1
                    self.third: int = 2
                    (self.fourth, [self.fifth, *self.sixth]), other.foreign = other

                async def later(self):
                    self.seventh += 1
                    with other as self.eighth:
                        for self.ninth in other: pass
                    self.first = 3
                    self.item["key"] = 4
            '''
        )
        names = ["said", "first", "second", "third", "fourth", "fifth", "sixth", "seventh"]
        names += ["eighth", "ninth"]
        attributes = [line for line in found["one"] if "public" in line]
        self.assertEqual(sorted(attributes), sorted(f"    cdef public object {n}" for n in names))

    def test_properties_are_none(self) -> None:
        """A property with a setter stays a property."""
        found = declared(
            one="""
            class A:
                @property
                def shown(self): return 1
                @shown.setter
                def shown(self, value): self._shown = value
                def __init__(self): self.shown = 2
            """
        )
        self.assertIn("    cdef public object _shown", found["one"])
        self.assertNotIn("    cdef public object shown", found["one"])

    def test_defaults_in_the_body(self) -> None:
        """A default in the body is refused with where it is and what to do; a constant beside
        slots, which no instance can change, is not."""
        for body in ("found = 1", "found: int = 1"):
            error = self.assertRaises(NotDeclarable, declared, some_module=f"class A:\n    {body}")
            for word in ("some_module.A", "found", "set it in __init__"):
                self.assertIn(word, str(error))
        found = declared(one="class A:\n    __slots__ = ()\n    found = 1")
        self.assertEqual(found["one"], ["cdef class A:", "    cdef object __weakref__"])

    def test_deleted(self) -> None:
        """An attribute cannot be taken away: an extension type would still have it."""
        source = "class A:\n    def f(self):\n        self.a = 1\n        del self.a"
        self.assertIn(
            "a cannot be deleted", str(self.assertRaises(NotDeclarable, declared, one=source))
        )


class MethodTests(SynchronousTestCase):
    def test_called_directly(self) -> None:
        """A plain method is; one with a scope of its own inside, with parameters that C does not
        know, with a decorator, a coroutine or a special one is not."""
        found = declared(
            one="""
            class A:
                def plain(self, a, b=1, c=None): pass
                def keyword(self, *, a): pass
                def any_number(self, *a): pass
                def any_words(self, **a): pass
                def positional(self, a, /): pass
                def inner(self): return lambda: 1
                def comprehended(self): return [one for one in self]
                def made(self): yield 1
                @staticmethod
                def decorated(): pass
                async def later(self): pass
                def __len__(self): return 1
            """
        )
        methods = [line for line in found["one"] if "cpdef" in line]
        self.assertEqual(
            methods, ["    cpdef object plain(self, object a, object b=*, object c=*)"]
        )

    def test_replaced(self) -> None:
        """A method that is called directly may be replaced by another such method only, however far
        below it stands; any other would not be called."""
        base = "class A:\n    def f(self): pass\nclass B(A): pass\nclass C(B):\n    "
        found = declared(one=f"{base}def f(self, a=1): pass")
        self.assertEqual(found["one"][-1], "    cpdef object f(self, object a=*)")
        for body in (
            "def f(self): return [a for a in self]",
            "def f(self, *, a=1): pass",
            "async def f(self): pass",
            "@property\n    def f(self): pass",
        ):
            error = str(self.assertRaises(NotDeclarable, declared, one=base + body))
            self.assertIn("one.C: f must be plain as in its base", error)


class KindTests(SynchronousTestCase):
    """What is known to be an object of a declared class."""

    def kinds(self, source: str) -> list[str]:
        """The lines of class A, in a module that can name the declared class Other."""
        told = dedent(source).strip().replace("\n", "\n    ")
        found = declared(
            one="class Other: pass",
            two=f"""from one import Other
from typing import Protocol
class Interface(Protocol): pass
class A:
    {told}
""",
        )
        return [line.strip() for line in found["two"]]

    def test_attributes(self) -> None:
        """By an annotation, by that of the parameter which __init__ sets it to, or by the call that
        makes it; None may stand there, too."""
        found = self.kinds(
            """
            said: Other
            def __init__(self, a: Other, b: Other | None, *, c: "Other"):
                self.a = a
                self.never, _ = a, b
                self.b = b
                self.c = c
                self.made = Other()
                self.said_there: Other | None = None
            """
        )
        for name in ("said", "a", "b", "c", "made", "said_there"):
            self.assertIn(f"cdef public Other {name}", found)
        self.assertIn("cdef public object never", found)
        self.assertEqual(found.count("from one cimport Other"), 1)

    def test_doubt(self) -> None:
        """Anything may stand where an interface, two classes or a kind of container is annotated,
        or where one place says this and another that."""
        found = self.kinds(
            """
            def __init__(
                self, a: Interface, b: Other | int, c: Sequence[Other], d: Other, e: one.Other
            ):
                self.a = a
                self.b = b
                self.c = c
                self.d = d
                self.e = e
            def again(self):
                self.d: Interface = None
            """
        )
        for name in "abcde":
            self.assertIn(f"cdef public object {name}", found)
        self.assertNotIn("from one cimport Other", found)

    def test_what_changes(self) -> None:
        """An attribute that is set later, here, below or by others, or by a function that __init__
        makes, stays a plain object: its object may go while a method of it runs."""
        found = declared(
            one="""
            class Other: pass
            class A:
                def __init__(self, a: Other):
                    self.stays = a
                    self.here = a
                    self.below = a
                    self.others = a
                    self.made = a
                    def later(): self.made = None
                def change(self): self.here = None
            class B(A):
                async def change_below(self): self.below = None
            def change(a: A): a.others = None
            """
        )
        for name in ("here", "below", "others", "made"):
            self.assertIn(f"    cdef public object {name}", found["one"])
        self.assertIn("    cdef public Other stays", found["one"])

    def test_parameters_and_results(self) -> None:
        """Of methods that are called without a look-up."""
        found = self.kinds("def f(self, a: Other, b: Other | None = None, c=1) -> Other: pass")
        self.assertIn("cpdef Other f(self, Other a, Other b=*, object c=*)", found)
        self.assertIn("from one cimport Other", found)

    def test_local_names(self) -> None:
        """Those that are annotated, of functions that are called without a look-up: they hold what
        an attribute that changes may lose."""
        found = self.kinds(
            """
            def f(self, b):
                a: Other | None = self._changes
                c: int = 1
                d: "Other" = b
            def f_inside(self):
                a: Other = self._changes
                return lambda: a
            """
        )
        at = found.index("@cython.locals(a=Other, d=Other)")
        self.assertEqual(found[at + 1], "cpdef object f(self, object b)")
        self.assertEqual(found.count("cimport cython"), 1)
        self.assertEqual([line for line in found if "f_inside" in line], [])

    def test_functions(self) -> None:
        """A module's functions are declared if they gain by it."""
        found = declared(
            one="""
            class Other: pass
            def takes(a: Other, b=1): pass
            def gives() -> Other | None: pass
            def holds(a): b: Other = a
            def neither(a: int): pass
            async def waits(a: Other): pass
            @decorated
            def cached(a: Other): pass
            """
        )
        self.assertEqual(
            found["one"],
            [
                "cimport cython",
                "cdef class Other:",
                "    cdef object __weakref__",
                "cpdef object takes(Other a, object b=*)",
                "cpdef Other gives()",
                "@cython.locals(b=Other)",
                "cpdef object holds(object a)",
            ],
        )

    def test_pythons_own(self) -> None:
        """Bytes, lists and sets are what they are annotated as; text and tuples have subclasses
        (enums, named tuples)."""
        found = self.kinds(
            """
            def __init__(self, a: bytes, b: list[Other] | None, c: str, d: tuple[int, ...]):
                self.a, self.b = a, b
                self.kept: set[int] = set()
                self.first = a
                self.second = b
                self.third = c
                self.fourth = d
            def f(self, data: bytes) -> list[bytes]:
                parts: list[bytes] = data.split()
                return parts
            """
        )
        for kind, name in (("bytes", "first"), ("list", "second"), ("set", "kept")):
            self.assertIn(f"cdef public {kind} {name}", found)
        for name in ("third", "fourth"):
            self.assertIn(f"cdef public object {name}", found)
        at = found.index("@cython.locals(parts=list)")
        self.assertEqual(found[at + 1], "cpdef list f(self, bytes data)")

    def test_dictionaries(self) -> None:
        """What begins as ``{}`` and is never set again; what only says that it is one may be of a
        class below dict."""
        found = self.kinds(
            """
            def __init__(self, told: dict[str, int]):
                self.known: dict[str, int] = {}
                self.plain = {}
                self.again = {}
                self.full = {1: 2}
                self.told = told
                self.ordered: dict[str, int] = OrderedDict()
                self.either = {}
                if told: self.either = load()
            def change(self): self.again = {}
            """
        )
        self.assertIn("cdef public dict known", found)
        self.assertIn("cdef public dict plain", found)
        for name in ("again", "full", "told", "ordered", "either"):
            self.assertIn(f"cdef public object {name}", found)

    def test_for_the_type_checker_only(self) -> None:
        """What a module does not import when it runs, its extension does not either: two modules
        may name each other's classes that way."""
        found = declared(
            one="class Other: pass",
            two="""
            if TYPE_CHECKING:
                from one import Other
            class A:
                def __init__(self, a: Other): self.a = a
            """,
        )
        self.assertNotIn("from one cimport Other", found["two"])
        self.assertIn("    cdef public object a", found["two"])


class ClassTests(SynchronousTestCase):
    def test_which(self) -> None:
        """No class with a decorator, with keywords, with several bases or with one that is not
        declared itself."""
        found = declared(
            one="""
            from somewhere import Foreign
            class Plain: pass
            class Below(Plain): pass
            @decorated
            class Decorated: pass
            class Keyword(metaclass=Plain): pass
            class Two(Plain, Below): pass
            class Error(Exception): pass
            class OfOthers(Foreign): pass
            class BelowOfOthers(OfOthers): pass
            def function():
                class Inner: pass
            """
        )
        classes = [line for line in found["one"] if line.startswith("cdef")]
        self.assertEqual(classes, ["cdef class Plain:", "cdef class Below(Plain):"])

    def test_a_base_of_another_module(self) -> None:
        """It is imported, also from a module that comes later, and its attributes, those of its own
        base too, are not declared again."""
        sources = {
            "a": "from b import Base\nclass C(Base):\n    def __init__(self):\n"
            "        self.own = self.low = self.high = 1",
            "b": "from c import Lowest\nclass Base(Lowest):\n    def __init__(self):\n"
            "        self.high = 1",
            "c": "class Lowest:\n    def __init__(self):\n        self.low = 1",
        }
        found = declared(**sources)
        self.assertEqual(found["a"][0], "from b cimport Base")
        self.assertEqual(found["a"][1:], ["cdef class C(Base):", "    cdef public object own"])
        self.assertEqual(found["b"][-1], "    cdef public object high")

    def test_nothing_to_declare(self) -> None:
        """A module of functions that name no declared class has no declarations."""
        self.assertEqual(declared(one="def f(): pass"), {})


class OwnModulesTests(SynchronousTestCase):
    def test_declarable(self) -> None:
        """Every module that is named exists and can be declared, and the objects that each request
        makes are extension types."""
        sources = {
            name: Path(ROOT, *name.split(".")).with_suffix(".py").read_text() for name in MODULES
        }
        texts = declarations(sources)
        for module, name in (
            ("gateway.parts", "Record"),
            ("gateway.passage", "Passage(RequestEnd)"),
            ("node.tenant_request", "TenantRequest(Forwarding)"),
            ("web.attempt", "ForwardAttempt(ResponseListener)"),
            ("web.client", "UpstreamConnection(StreamProtocol)"),
            ("web.exchange", "ServerExchange(ClientSide)"),
            ("web.interfaces", "RequestHead"),
            ("web.server_connection", "HTTPServerConnection(ClientConnection)"),
        ):
            self.assertIn(f"cdef class {name}:", texts[f"pbcluster.{module}"])

    def test_named_once_and_in_order(self) -> None:
        """The list of modules is sorted."""
        self.assertEqual(list(MODULES), sorted(set(MODULES)))
