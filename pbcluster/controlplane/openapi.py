"""The admin API as an OpenAPI 3.1 document, made from the table of its operations. Pure.

Nothing is said here of a single route: paths, parameters, bodies, answers and roles come from
``admin_table.Operation``, schemas from the types of bodies and answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args, get_origin

import msgspec

from pbcluster import __version__
from pbcluster.controlplane.admin_table import (
    MAX_KEY_BYTES,
    REQUEST_ID,
    REQUEST_ID_RULE,
    Operation,
    Param,
)
from pbcluster.controlplane.admin_views import Problem

_PART = re.compile(r"<string:(\w+)>")
_REF = "#/components/schemas/{name}"
JSON = "application/json"
#: What any operation may answer beside its own; some only if they apply.
PROBLEMS = {
    400: "A field has a wrong type or form, or is unknown; `data` names it.",
    401: "No token, a wrong one, or one that ended or was revoked.",
    403: "The token's role does not allow this.",
    404: "There is none.",
    405: "This method is not allowed here.",
    409: "It contradicts what is there, or the record was changed since it was read.",
    413: "The body has more than 1 MiB.",
    414: "The target has more than 16 KiB.",
    422: "A field has the right form and cannot be all the same; `data` names it.",
    429: "Too many wrong tokens came from this address.",
    431: "A header has more than 16 KiB.",
    500: "A fault of the control plane.",
    503: "It cannot be done now; `Retry-After` says when to ask again.",
    504: "Whether it was done is unknown: repeat it with the same Idempotency-Key.",
}
_DESCRIPTION = (
    "Operators' API of a pbcluster control plane. Any member takes any request. Errors have "
    "PocketBase's form. Lists have pages, `sort`, `filter` and `fields`. A change may carry "
    "`If-Match` with the ETag that was read, and an `Idempotency-Key`, under which it is done once."
)


def document(operations: Mapping[str, Operation]) -> dict[str, Any]:
    """The whole document, as JSON values."""
    paths: dict[str, Any] = {}
    for operation in operations.values():
        path = readable(operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pbcluster admin API",
            "version": __version__,
            "description": _DESCRIPTION,
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _schemas(operations.values()),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def readable(path: str) -> str:
    """A path of Klein's as OpenAPI writes it."""
    return _PART.sub(r"{\1}", path)


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON Schema of a body."""
    _, found = msgspec.json.schema_components([kind], ref_template=_REF)
    schema: dict[str, Any] = found[kind.__name__]
    return schema


def _operation(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.description:
        found["description"] = operation.description
    # Anybody may ask these; with a token they may tell more.
    found["security"] = [{"token": []}] + ([{}] if operation.role is None else [])
    if operation.role is not None:
        found["x-role"] = operation.role.value
    if operation.body is not None:
        found["requestBody"] = {
            "required": operation.body_required,
            "content": {JSON: {"schema": _ref(operation.body)}},
        }
    return found


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PART.findall(operation.path)
    ]
    found += [_query(param) for param in operation.query]
    headers = {
        REQUEST_ID: f"The request's id in logs and audit: {REQUEST_ID_RULE}; else a new one."
    }
    schemas: dict[str, dict[str, Any]] = {REQUEST_ID: {"type": "string"}}
    if operation.method != "GET":
        headers["Idempotency-Key"] = "Under one key it is done once; 200 printable characters."
        schemas["Idempotency-Key"] = {"type": "string", "pattern": f"^[ -~]{{0,{MAX_KEY_BYTES}}}$"}
    for name, told in headers.items():
        found.append({"name": name, "in": "header", "description": told, "schema": schemas[name]})
    if operation.conditional:
        found.append(
            {
                "name": "If-Match",
                "in": "header",
                "description": "The ETag that was read, or *: another version is a conflict.",
                "schema": {"type": "string", "pattern": '^("[0-9]{1,18}"|[0-9]{1,18}|\\*)$'},
            }
        )
    return found


def _query(param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": param.kind}
    limits = {
        "minimum": param.minimum,
        "maximum": param.maximum,
        "maxLength": param.max_length,
        "pattern": param.pattern,
        "default": param.default,
    }
    schema |= {name: value for name, value in limits.items() if value is not None}
    return {
        "name": param.name,
        "in": "query",
        "required": param.required,
        "description": param.description,
        "schema": schema,
    }


def _responses(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, kind in operation.answers.items():
        found[str(status)] = {"description": operation.summary, "content": _content(kind)}
    problem = {JSON: {"schema": _ref(Problem)}}
    for status, told in PROBLEMS.items():
        if str(status) not in found:
            found[str(status)] = {"description": told, "content": problem}
    return found


def _content(kind: Any) -> dict[str, Any]:
    if kind is bytes:
        return {"application/octet-stream": {"schema": {}}}
    if kind is None:
        return {JSON: {"schema": {"type": "object"}}}
    if get_origin(kind) is list:
        return {JSON: {"schema": {"$ref": _REF.format(name=_list_name(get_args(kind)[0]))}}}
    return {JSON: {"schema": _ref(kind)}}


def _ref(kind: Any) -> dict[str, Any]:
    return {"$ref": _REF.format(name=kind.__name__)}


def _list_name(kind: Any) -> str:
    return f"ListOf{kind.__name__}"


def _schemas(operations: Iterable[Operation]) -> dict[str, Any]:
    bodies, views, items = {Problem.__name__: Problem}, {}, {}
    for operation in operations:
        if operation.body is not None:
            bodies[operation.body.__name__] = operation.body
        for kind in operation.answers.values():
            if get_origin(kind) is list:
                items[get_args(kind)[0].__name__] = get_args(kind)[0]
            elif kind not in (None, bytes):
                views[kind.__name__] = kind
    kinds = list((bodies | views | items).values())
    _, found = msgspec.json.schema_components(kinds, ref_template=_REF)
    for name in views:
        # Answers are whole, whatever has a default in the record.
        found[name]["required"] = sorted(found[name]["properties"])
    for name, kind in items.items():
        found[_list_name(kind)] = _list(found[name])
    return dict(sorted(found.items()))


def _list(item: Mapping[str, Any]) -> dict[str, Any]:
    """A page; with ``fields`` its items lack some, so none of theirs is required."""
    whole = {name: value for name, value in item.items() if name != "required"}
    number = {"type": "integer", "minimum": 0}
    names = ("page", "perPage", "totalItems", "totalPages")
    return {
        "type": "object",
        "properties": dict.fromkeys(names, number) | {"items": {"type": "array", "items": whole}},
        "required": [*names, "items"],
    }
