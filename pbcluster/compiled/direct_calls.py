"""Calls that need no look-up from one module to another, and objects that are made by one. Pure.

Cython calls a function of the same module directly, but one that was imported as any object of
Python, and so it makes an object of a class, even of an extension type: a tuple of arguments, a
look at the type, the arguments read again. That is most of what such a call takes. So the copies of
the sources that are translated are changed:

* For each class that is declared (``declarations``) and has a plain ``__init__`` a function stands
  at the module's end that does what ``__init__`` does, with an object made before it.
* Who calls such a class, or a declared function of another module, by its name and with positional
  arguments alone, calls the function directly instead, by a name of its own (:data:`PREFIX`).

All other calls stay as they are, so what a name means to everybody else does not change. The lines
of the sources stay where they are: a traceback tells the right ones.
"""

from __future__ import annotations

import ast
from collections.abc import Container, Iterable, Mapping

from pbcluster.compiled.declarations import (
    INNER,
    NotDeclarable,
    Place,
    declarable,
    direct_functions,
    names_imported,
)

#: Names that a module of ours does not use otherwise begin so.
PREFIX = "_direct_"


def with_constructors(sources: Mapping[str, str]) -> dict[str, str]:
    """The sources with a function for each class that can be made by one.

    :param sources: module name → its source.
    """
    known = declarable(sources)
    return {
        name: "".join([source, *(f"\n\n{made}\n" for made in _constructors(name, source, known))])
        for name, source in sources.items()
    }


def with_direct_calls(sources: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Who calls what, directly.

    :param sources: as :func:`with_constructors` gave them.
    :return: the sources, and for each module the lines that its ``.pxd`` file needs beside
        ``declarations``.
    """
    known = declarable(sources)
    functions = direct_functions(sources, known)
    changed: dict[str, str] = {}
    lines: dict[str, str] = {}
    for name, source in sources.items():
        tree = ast.parse(source, name)
        bound = set(_bound_by_statements(tree))
        meant = {
            word: function
            for word, function in _functions_meant(name, tree, known)
            if function in functions and word not in bound
        }
        changed[name], used = _calling(source, tree, meant)
        lines[name] = "".join(
            f"from {place.module} cimport {place.name} as {PREFIX}{word}\n"
            for word, place in sorted(meant.items())
            if word in used and place.module != name
        )
    return changed, lines


def _functions_meant(
    module: str, tree: ast.Module, known: Container[Place]
) -> Iterable[tuple[str, Place]]:
    """What to call for each name that a module imports, or for a class of its own."""
    for word, place in names_imported(tree).items():
        yield word, Place(place.module, _maker(place.name)) if place in known else place
    for each in tree.body:
        if isinstance(each, ast.ClassDef) and Place(module, each.name) in known:
            yield each.name, Place(module, _maker(each.name))


def _bound_by_statements(tree: ast.Module) -> Iterable[str]:
    """Names that anything but the module's own imports, functions and classes gives a meaning."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                yield name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)):
                yield name
            case ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                yield name
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if node not in tree.body:
                    yield node.name
            case ast.Import() | ast.ImportFrom():
                if node not in tree.body:
                    yield from (alias.asname or alias.name for alias in node.names)


def _maker(name: str) -> str:
    """The name of the function that makes an object of a class."""
    return f"{PREFIX}{name}"


def _constructors(module: str, source: str, known: Mapping[Place, object]) -> Iterable[str]:
    classes = {each.name: each for each in ast.parse(source).body if isinstance(each, ast.ClassDef)}
    for name, node in classes.items():
        if Place(module, name) in known:
            begins = next((each for each in node.body if _is_plain_init(each)), None)
            if isinstance(begins, ast.FunctionDef):
                yield ast.unparse(ast.fix_missing_locations(_constructor(name, begins)))


def _is_plain_init(node: ast.stmt) -> bool:
    """Whether it is an ``__init__`` that does nothing which a function could not do."""
    if not isinstance(node, ast.FunctionDef) or node.name != "__init__":
        return False
    parameters = node.args
    defaults = [*parameters.defaults, *(each for each in parameters.kw_defaults if each)]
    return not (
        node.decorator_list
        or parameters.posonlyargs
        or parameters.vararg
        or parameters.kwarg
        or None in parameters.kw_defaults
        or not all(_is_simple(each) for each in defaults)
        or any(_is_bound(each) for each in ast.walk(node) if each is not node)
    )


def _is_simple(default: ast.expr) -> bool:
    """Whether a default means the same at the module's end."""
    return isinstance(default, ast.Constant) or ast.unparse(default) == "()"


def _is_bound(node: ast.AST) -> bool:
    """Whether something needs its class, or a scope of its own."""
    match node:
        case ast.Name(id="super" | "__class__") | ast.Return():
            return True
        case ast.Attribute(attr=name) if name.startswith("__"):
            return True
    return isinstance(node, INNER)


def _constructor(name: str, begins: ast.FunctionDef) -> ast.FunctionDef:
    parameters = begins.args
    itself = parameters.args[0].arg
    makes = ast.parse(f"{itself}: {name} = {name}.__new__({name})").body
    body = begins.body[1:] if ast.get_docstring(begins) is not None else begins.body
    return ast.FunctionDef(
        name=_maker(name),
        args=ast.arguments(
            posonlyargs=[],
            args=[*parameters.args[1:], *parameters.kwonlyargs],
            kwonlyargs=[],
            kw_defaults=[],
            defaults=[*parameters.defaults, *(each for each in parameters.kw_defaults if each)],
        ),
        body=[*makes, *body, ast.Return(ast.Name(itself))],
        decorator_list=[],
        returns=ast.Name(name),
    )


def _calling(source: str, tree: ast.Module, meant: Mapping[str, Place]) -> tuple[str, set[str]]:
    """The source with other names in the calls, and which of ``meant`` they were."""
    lines = [line.encode() for line in source.split("\n")]
    calls = [
        node.func
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in meant
        and not node.keywords
        and not any(isinstance(each, ast.Starred) for each in node.args)
    ]
    # From behind, so that what stands before keeps its place.
    for name in sorted(calls, key=lambda each: (each.lineno, each.col_offset), reverse=True):
        at, line = name.col_offset, lines[name.lineno - 1]
        if not line.startswith(name.id.encode(), at):
            raise NotDeclarable(f"{name.id} does not stand where it is said to: {line.decode()}")
        lines[name.lineno - 1] = line[:at] + PREFIX.encode() + line[at:]
    return b"\n".join(lines).decode(), {name.id for name in calls}
