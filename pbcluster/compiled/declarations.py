"""What Cython must know of a module's classes, read from the module itself. Pure.

Cython takes a class for an extension type if a ``.pxd`` file beside its module declares it: its
attributes, and the methods that may be called without a look-up. Such files would repeat what the
classes say already, and go stale; so they are made, from the source, each time the modules are
built.

Declared is every class that has no base, or one that is declared itself, and no decorator: others
(attrs' and msgspec's classes, tuples, errors, interfaces) stay as they are. All attributes are
declared as plain Python objects, so that anything may stand in them that may in the Python class, a
test's double too.

What cannot become an attribute of an extension type is refused here, with the reason: a default
that stands in the class for what instances change.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import NamedTuple

#: A scope of its own inside a method: it cannot be called without a look-up.
_INNER = (
    ast.Lambda,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.GeneratorExp,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.Yield,
    ast.YieldFrom,
)


class NotDeclarable(ValueError):
    """A class that should become an extension type cannot; says which, where, and what to do."""


def declarations(sources: Mapping[str, str]) -> dict[str, str]:
    """The text of the ``.pxd`` file of each module that has a class to declare.

    :param sources: module name → its source.
    :raises NotDeclarable: a class has a default in its body for an attribute of its instances.
    :raises SyntaxError: a source cannot be read.
    """
    classes = [one for name, source in sources.items() for one in _classes(name, source)]
    known: dict[Place, set[str]] = {}
    # A base may stand in a module that comes later.
    while more := [one for one in classes if one.place not in known and one.stands_on(known)]:
        known.update({one.place: {*one.attributes(), *one.inherited(known)} for one in more})
    lines: dict[str, list[str]] = {}
    for one in classes:
        if one.place in known:
            lines.setdefault(one.place.module, []).extend(one.declared(known))
    return {name: "\n".join([*_imports_first(found), ""]) for name, found in lines.items()}


class Place(NamedTuple):
    """Where a class stands."""

    module: str
    name: str


class _Class:
    """A class without decorators that has at most one base.

    :ivar base: None: it has none.
    """

    def __init__(self, place: Place, node: ast.ClassDef, base: Place | None) -> None:
        self.place = place
        self.base = base
        self._node = node
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        self._named = {each.name for each in node.body if isinstance(each, functions)}

    def stands_on(self, known: Mapping[Place, set[str]]) -> bool:
        """Whether its base, if it has one, is among those that are ``known``."""
        return self.base is None or self.base in known

    def inherited(self, known: Mapping[Place, set[str]]) -> set[str]:
        """The attributes of its base and of what stands below that."""
        return known[self.base] if self.base is not None else set()

    def attributes(self) -> list[str]:
        """What is assigned to ``self``, or annotated in the class, in the order of the source."""
        names = dict.fromkeys(_annotated(self._node))
        for each in ast.walk(self._node):
            if isinstance(each, ast.Assign):
                targets = each.targets
            elif isinstance(each, ast.AnnAssign | ast.AugAssign):
                targets = [each.target]
            else:
                continue
            names.update(dict.fromkeys(_of_self(targets)))
        return [name for name in names if name not in self._named]

    def _defaults(self) -> set[str]:
        """Names with a value in the class's body that instances may change: not so with slots."""
        names = set[str]()
        for each in self._node.body:
            if isinstance(each, ast.Assign):
                names.update(one.id for one in each.targets if isinstance(one, ast.Name))
            elif isinstance(each, ast.AnnAssign) and each.value is not None:
                names.add(ast.unparse(each.target))
        return set() if "__slots__" in names else names

    def declared(self, known: Mapping[Place, set[str]]) -> Iterable[str]:
        """Its lines, the import of its base before them."""
        (module, name), base = self.place, self.base
        if defaults := sorted(self._defaults()):
            raise NotDeclarable(
                f"{module}.{name}: {', '.join(defaults)} cannot have a default in the class's "
                "body, where instances could not change it: set it in __init__"
            )
        if base is not None and base.module != module:
            yield f"from {base.module} cimport {base.name}"
        yield f"cdef class {name}({base.name}):" if base is not None else f"cdef class {name}:"
        inherited = self.inherited(known)
        own = [each for each in self.attributes() if each not in inherited]
        yield from (f"    cdef public object {each}" for each in own)
        if base is None:
            yield "    cdef object __weakref__"
        for each in self._node.body:
            if isinstance(each, ast.FunctionDef) and _can_be_called_directly(each):
                yield f"    cpdef {each.name}({_parameters(each.args)})"


def _classes(module: str, source: str) -> Iterable[_Class]:
    """The classes of a module that may be declared, if their bases are."""
    tree = ast.parse(source, module)
    imported = {
        alias.asname or alias.name: Place(each.module, alias.name)
        for each in tree.body
        if isinstance(each, ast.ImportFrom) and each.module
        for alias in each.names
    }
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords:
            continue
        bases = [ast.unparse(each) for each in node.bases]
        if len(bases) <= 1:
            below = [imported.get(name, Place(module, name)) for name in bases]
            yield _Class(Place(module, node.name), node, below[0] if below else None)


def _imports_first(lines: Iterable[str]) -> list[str]:
    return sorted(lines, key=lambda line: not line.startswith("from "))


def _annotated(node: ast.ClassDef) -> Iterable[str]:
    """What is annotated in a class without a value: an attribute of its instances."""
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and each.value is None:
            yield ast.unparse(each.target)


def _of_self(targets: Iterable[ast.expr]) -> Iterable[str]:
    """The attributes of ``self`` among the targets of an assignment."""
    for each in targets:
        if isinstance(each, ast.Tuple | ast.List):
            yield from _of_self(each.elts)
        elif isinstance(each, ast.Starred):
            yield from _of_self([each.value])
        elif isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self":
            yield each.attr


def _can_be_called_directly(method: ast.FunctionDef) -> bool:
    parameters = method.args
    plain = not (parameters.kwonlyargs or parameters.vararg or parameters.kwarg)
    special = method.name.startswith("__") or method.decorator_list
    inner = any(isinstance(each, _INNER) for each in ast.walk(method) if each is not method)
    return plain and not special and not inner


def _parameters(arguments: ast.arguments) -> str:
    names = [each.arg for each in arguments.args]
    required = len(names) - len(arguments.defaults)
    return ", ".join(f"{name}=*" if at >= required else name for at, name in enumerate(names))
