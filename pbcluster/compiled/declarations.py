"""What Cython must know of a module's classes, read from the module itself. Pure.

Cython takes a class for an extension type if a ``.pxd`` file beside its module declares it: its
attributes, and the methods that may be called without a look-up. Such files would repeat what the
classes say already, and go stale; so they are made, from the source, each time the modules are
built.

Declared is every class that has no base, or one that is declared itself, and no decorator: others
(attrs' and msgspec's classes, tuples, errors, interfaces) stay as they are.

What is annotated as an object of a declared class (or None) is declared as one, too: attributes,
parameters, local names and results, of methods and of a module's functions. So it is found without
a look-up, and anything else is refused, a test's double that is no subclass too. So are ``bytes``,
lists and sets; an attribute that begins as ``{}`` is a dict. Annotations with interfaces and all
others declare nothing. A class counts if the module imports it when it runs, not only for the type
checker: the extension does so, too, and the sources' own order of imports is one in which that can
be done.

Attributes that are set again after ``__init__``, by whomever, stay plain objects. Of a method that
is called through a typed one nobody holds the object: were the attribute set to None meanwhile, it
would be freed below the running method. Through one that never changes it lives as long as its
owner, which whoever called that holds.

What an extension type cannot do is refused here, with the reason: to have a default in the class
for what instances change, to lose an attribute, and to replace a method of its base that is called
without a look-up by one that is not (it would not be called).
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

#: A scope of its own inside a method: it cannot be called without a look-up.
INNER = (
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
    :raises NotDeclarable: a class does what an extension type cannot.
    :raises SyntaxError: a source cannot be read.
    """
    known = declarable(sources)
    outside = {name for source in sources.values() for name in _set_from_outside(source)}
    for one in known.values():
        changing = outside | one.set_later()
        each: _Class | None = one
        while each is not None:
            each.changing |= changing
            each = each.below
    lines: dict[str, list[str]] = {}
    for one in known.values():
        lines.setdefault(one.place.module, []).extend(one.declared(known.keys()))
    for name, source in sources.items():
        imports, functions = _functions(name, source, known.keys())
        if functions:
            told = [line for one in functions.values() for line in one]
            lines.setdefault(name, []).extend([*imports, *told])
    return {name: "\n".join([*_imports_first(found), ""]) for name, found in lines.items()}


def declarable(sources: Mapping[str, str]) -> dict[Place, _Class]:
    """The classes that are declared, in their order."""
    classes = [one for name, source in sources.items() for one in _classes(name, source)]
    known: dict[Place, _Class] = {}
    # A base may stand in a module that comes later.
    while more := [one for one in classes if one.place not in known and one.stands_on(known)]:
        for one in more:
            one.below = known.get(one.base) if one.base is not None else None
            known[one.place] = one
    return {one.place: one for one in classes if one.place in known}


def direct_functions(sources: Mapping[str, str], known: Container[Place]) -> set[Place]:
    """The functions of modules that are declared.

    :param known: the classes that are.
    """
    return {
        Place(name, each)
        for name, source in sources.items()
        for each in _functions(name, source, known)[1]
    }


class Place(NamedTuple):
    """Where a class, or a function, stands."""

    module: str
    name: str


#: Python's own that have no subclasses in use: what is annotated as one is exactly that. Not so
#: dict, of which there are several.
_BUILTINS = {name: Place("builtins", name) for name in ("bytes", "list", "set")}
_DICT = Place("builtins", "dict")


class _Class:
    """A class without decorators that has at most one base.

    :ivar base: None: it has none. :ivar below: it, once it is known to be declared.
    :ivar changing: attributes that are set again after ``__init__``.
    """

    def __init__(self, place: Place, node: ast.ClassDef, imported: Mapping[str, Place]) -> None:
        """
        :param imported: what the names mean that its module imports.
        """
        self.place = place
        self._names = _Names(place.module, imported)
        self.base = self._names.place(ast.unparse(node.bases[0])) if node.bases else None
        self.below: _Class | None = None
        self.changing = set[str]()
        self._node = node
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        self._named = {each.name for each in node.body if isinstance(each, functions)}

    def stands_on(self, known: Mapping[Place, _Class]) -> bool:
        """Whether its base, if it has one, is among those that are ``known``."""
        return self.base is None or self.base in known

    def attributes(self) -> list[str]:
        """All that is assigned to ``self``, or annotated in the class; of its base too."""
        names = self.below.attributes() if self.below is not None else []
        names += _annotated(self._node)
        for each in ast.walk(self._node):
            if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self":
                if isinstance(each.ctx, ast.Store):
                    names.append(each.attr)
                elif isinstance(each.ctx, ast.Del):
                    raise self._wrong(f"{each.attr} cannot be deleted: set it to None")
        return [name for name in dict.fromkeys(names) if name not in self._named]

    def direct(self) -> dict[str, ast.FunctionDef]:
        """The methods that are called without a look-up, those of its base too."""
        found = self.below.direct() if self.below is not None else {}
        own = {
            each.name: each
            for each in self._node.body
            if isinstance(each, ast.FunctionDef) and _can_be_called_directly(each)
        }
        if lost := sorted(found.keys() & self._named - own.keys()):
            raise self._wrong(
                f"{', '.join(lost)} must be plain as in its base: no decorator, no coroutine, no "
                "keyword-only parameters, no lambda, comprehension or function inside"
            )
        return found | own

    def _defaults(self) -> set[str]:
        """Names with a value in the class's body that instances may change: not so with slots."""
        names = set[str]()
        for each in self._node.body:
            if isinstance(each, ast.Assign):
                names.update(one.id for one in each.targets if isinstance(one, ast.Name))
            elif isinstance(each, ast.AnnAssign) and each.value is not None:
                names.add(ast.unparse(each.target))
        return set() if "__slots__" in names else names

    def set_later(self) -> set[str]:
        """Attributes that its methods set, other than ``__init__``, or what is made in there."""
        found = set[str]()
        for method in self._node.body:
            begins = getattr(method, "name", "") == "__init__"
            for part in _functions_in(method) if begins else [method]:
                found.update(_stored(part, by_self=True))
        return found

    def _kinds(self) -> dict[str, Place | None]:
        """What is annotated of its attributes, or known of what ``__init__`` sets them to."""
        found: dict[str, Place | None] = {}
        for name, kind in _annotations(self._node):
            place = self._names.named_by(kind) if name not in self.changing else None
            found[name] = place if found.get(name, place) == place else None
        for name in self._not_only_empty():
            if found.get(name) == _DICT:
                found[name] = None
        return found

    def _not_only_empty(self) -> Iterable[str]:
        """Attributes that ``__init__`` sets to anything but ``{}``."""
        for method in self._node.body:
            if not isinstance(method, ast.FunctionDef) or method.name != "__init__":
                continue
            for each in ast.walk(method):
                match each:
                    case ast.Assign(value=ast.Dict(keys=[])):
                        continue
                    case ast.AnnAssign(value=ast.Dict(keys=[])):
                        continue
                    case ast.Assign() | ast.AnnAssign() | ast.AugAssign() | ast.For() | ast.With():
                        yield from _stored(each, by_self=True)

    def declared(self, known: Container[Place]) -> Iterable[str]:
        """Its lines, and the imports that they take.

        :param known: the classes that are declared.
        """
        (module, name), base, below = self.place, self.base, self.below
        if defaults := sorted(self._defaults()):
            raise self._wrong(
                f"{', '.join(defaults)} cannot have a default in the class's body, where instances "
                "could not change it: set it in __init__"
            )
        kind = _Kinds(known)
        if base is not None:
            kind.used.add(base)
        lines = [f"cdef class {name}({base.name}):" if base is not None else f"cdef class {name}:"]
        inherited = below.attributes() if below is not None else []
        kinds = self._kinds()
        lines += [
            f"    cdef public {kind(kinds.get(each))} {each}"
            for each in self.attributes()
            if each not in inherited
        ]
        if base is None:
            lines.append("    cdef object __weakref__")
        for each in self.direct().values():
            if each in self._node.body:
                lines += [f"    {line}" for line in self._names.callable(each, kind, "self")]
        yield from kind.imports(module)
        yield from lines

    def _wrong(self, why: str) -> NotDeclarable:
        return NotDeclarable(f"{self.place.module}.{self.place.name}: {why}")


class _Kinds:
    """The type of a class, if it is declared; remembers which of them were used.

    :ivar used: those classes. :ivar own: one of Python's own was asked for.
    """

    def __init__(self, known: Container[Place]) -> None:
        self.used = set[Place]()
        self.own = False
        self._known = known

    def __call__(self, place: Place | None) -> str:
        """Its name for Cython; ``object`` for all that is not declared."""
        if place is not None and place.module == "builtins":
            self.own = True
            return place.name
        if place is None or place not in self._known:
            return "object"
        self.used.add(place)
        return place.name

    def imports(self, module: str) -> Iterable[str]:
        """What a module must import for them."""
        return sorted(f"from {p.module} cimport {p.name}" for p in self.used if p.module != module)


class _Names:
    """What the names of a module mean."""

    def __init__(self, module: str, imported: Mapping[str, Place]) -> None:
        self._module = module
        self._imported = imported

    def place(self, name: str) -> Place:
        """What a name means, if it is a class at all."""
        return self._imported.get(name) or _BUILTINS.get(name) or Place(self._module, name)

    def named_by(self, annotation: ast.expr | None) -> Place | None:
        """The class that an annotation names, alone or with None."""
        match annotation:
            case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Constant(value=None)):
                return self.named_by(left)
            case ast.Name(id=name) | ast.Constant(value=str(name)):
                return self.place(name)
            case ast.Subscript(value=ast.Name(id=name)) if name in _BUILTINS:
                return self.place(name)
            case ast.Dict(keys=[]):
                return _DICT
        return None

    def callable(self, node: ast.FunctionDef, kind: _Kinds, own: str = "") -> Iterable[str]:
        """The lines of a function, or a method, that may be called without a look-up.

        :param own: the name of a method's first parameter, whose type is known.
        """
        if local := list(self._locals(node, kind)):
            yield f"@cython.locals({', '.join(local)})"
        required = len(node.args.args) - len(node.args.defaults)
        parameters = []
        for at, each in enumerate(node.args.args):
            default = "=*" if at >= required else ""
            typed = f"{kind(self.named_by(each.annotation))} " if at or not own else ""
            parameters.append(f"{typed}{each.arg}{default}")
        yield f"cpdef {kind(self.named_by(node.returns))} {node.name}({', '.join(parameters)})"

    def _locals(self, node: ast.FunctionDef, kind: _Kinds) -> Iterable[str]:
        for each in ast.walk(node):
            match each:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                    if (found := kind(self.named_by(annotation))) != "object":
                        yield f"{name}={found}"


def names_imported(tree: ast.Module) -> Mapping[str, Place]:
    """What the names mean that a module imports."""
    return {
        alias.asname or alias.name: Place(each.module, alias.name)
        for each in tree.body
        if isinstance(each, ast.ImportFrom) and each.module
        for alias in each.names
    }


def _functions(
    module: str, source: str, known: Container[Place]
) -> tuple[Iterable[str], dict[str, list[str]]]:
    """The lines of a module's functions that gain by it: some of their names are of a class that
    is declared, or of Python's own. Before them the imports that they take."""
    tree = ast.parse(source, module)
    names, kind = _Names(module, names_imported(tree)), _Kinds(known)
    lines: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and _can_be_called_directly(node):
            alone = _Kinds(known)
            found = list(names.callable(node, alone))
            if alone.used or alone.own:
                kind.used |= alone.used
                lines[node.name] = found
    return kind.imports(module), lines


def _classes(module: str, source: str) -> Iterable[_Class]:
    """The classes of a module that may be declared, if their bases are."""
    tree = ast.parse(source, module)
    imported = names_imported(tree)
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.decorator_list or node.keywords:
            continue
        if len(node.bases) <= 1:
            yield _Class(Place(module, node.name), node, imported)


def _imports_first(lines: Iterable[str]) -> list[str]:
    """Each import once, before all else."""
    lines = list(lines)
    imports = dict.fromkeys(line for line in lines if line.startswith("from "))
    if any("@cython." in line for line in lines):
        imports = {"cimport cython": None} | imports
    return [*imports, *(line for line in lines if line not in imports)]


def _annotated(node: ast.ClassDef) -> Iterable[str]:
    """What is annotated in a class without a value: an attribute of its instances."""
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and each.value is None:
            yield ast.unparse(each.target)


def _stored(node: ast.AST, *, by_self: bool) -> Iterable[str]:
    """Names of attributes that are set, of ``self`` or of other objects."""
    for each in ast.walk(node):
        match each:
            case ast.Attribute(value=owner, attr=name, ctx=ast.Store() | ast.Del()):
                if (ast.unparse(owner) == "self") == by_self:
                    yield name


def _set_from_outside(source: str) -> Iterable[str]:
    return _stored(ast.parse(source), by_self=False)


def _functions_in(method: ast.AST) -> Iterable[ast.AST]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    return (each for each in ast.walk(method) if isinstance(each, functions) and each is not method)


def _annotations(node: ast.ClassDef) -> Iterable[tuple[str, ast.expr]]:
    """Attributes, and what names their class: an annotation, or in ``__init__`` that of the
    parameter which they are set to, or a class that is called."""
    for each in ast.walk(node):
        match each:
            case ast.AnnAssign(target=ast.Attribute(value=ast.Name(id="self"), attr=name)):
                empty = isinstance(each.value, ast.Dict) and not each.value.keys
                yield name, each.value if empty and each.value else each.annotation
    for method in node.body:
        match method:
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, method.annotation
            case ast.FunctionDef(name="__init__"):
                yield from _first_values(method)


def _first_values(method: ast.FunctionDef) -> Iterable[tuple[str, ast.expr]]:
    parameters = (*method.args.args, *method.args.kwonlyargs)
    known = {each.arg: each.annotation for each in parameters if each.annotation is not None}
    for each in ast.walk(method):
        match each:
            case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)]):
                match each.value:
                    case ast.Name(id=parameter) if parameter in known:
                        yield name, known[parameter]
                    case ast.Call(func=ast.Name() as called):
                        yield name, called
                    case ast.Dict(keys=[]) as empty:
                        yield name, empty


def _can_be_called_directly(method: ast.FunctionDef) -> bool:
    parameters = method.args
    plain = not (
        parameters.posonlyargs or parameters.kwonlyargs or parameters.vararg or parameters.kwarg
    )
    special = method.name.startswith("__") or method.decorator_list
    inner = any(isinstance(each, INNER) for each in ast.walk(method) if each is not method)
    return plain and not special and not inner
