"""The reference page of the admin API, made from the table of its operations. Pure.

``python -m pbcluster.controlplane.api_page > docs/api.rst``; a test compares the page with what
this gives. What no table can say stands in :data:`INTRO`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pbcluster.controlplane import openapi
from pbcluster.controlplane.admin_guard import OPERATIONS
from pbcluster.controlplane.admin_table import Operation

INTRO = """\
The admin API
=============

.. Made by ``python -m pbcluster.controlplane.api_page``. Do not edit.

JSON over HTTP at ``admin_listen`` of any member, below ``/api/cp/``: what only the leader can do
is passed on to it. The same as an OpenAPI 3.1 document: ``GET /api/cp/openapi.json``. ``{key}``
is an id; for tenants also a name.

* ``Authorization: Bearer TOKEN``: the cluster's own admin token (``DIR/admin.token``) or an API
  token of a role. *viewer* looks, *operator* also works with tenants and nodes, *admin* does
  everything. 401 without one, 403 if its role does not allow it, 429 after 20 wrong ones from
  one address within a minute; a right one always passes.
* Errors are PocketBase's ``{"status", "message", "data"}``; ``data`` has an entry for the wrong
  field. 400: unknown field, wrong type or form. 422: right form, and it cannot be all the same.
  409: it contradicts what is there. 503 and 504 have ``data.code`` (``not_leader``,
  ``no_capacity``, ``deadline`` ...) and ``Retry-After``.
* ``Idempotency-Key``: a change under one key is made once, however often it is asked for.
* ``If-Match`` with the ``ETag`` of an answer, or ``version`` in a body: 409 if the record was
  changed since.
* ``X-Request-Id``: 1 to 64 letters, digits and ``.``, ``_``, ``-``; it comes back, else a fresh
  one, and stands in logs and audit.
* A body has at most 1 MiB: 413.

Lists
-----

``{"page", "perPage", "totalItems", "totalPages", "items"}``, after
``?page=1&perPage=30&sort=-created,name&filter=...&fields=id,name``. ``perPage`` is at most 500.
A filter is one to ten conditions ``FIELD OPERATOR VALUE`` with ``&&`` and ``||`` between them
(``&&`` binds closer; there are no parentheses), with the operators ``=``, ``!=``, ``>``, ``>=``,
``<``, ``<=``, ``~`` (contains, letters of any case) and ``!~``; a value is a text in single or
double quotes, a number, ``true`` or ``false``. Times are compared as texts: ``created >
'2026-11-26 12:00'``. An example::

    curl -G http://127.0.0.1:8095/api/cp/tenants -H "Authorization: Bearer $TOKEN" \\
         --data-urlencode "filter=status = 'active' && nodeID = 'node_1'" -d sort=-created

Lists by ``created`` or ``name``, and by an equal ``id``, ``name`` or ``nodeID``, use an index;
other filters look at every tenant, in small steps beside all other work.
"""


def page(operations: Mapping[str, Operation]) -> str:
    """The whole page."""
    parts = [INTRO]
    for tag in dict.fromkeys(each.tag for each in operations.values()):
        parts += ["", tag, "-" * len(tag), ""]
        for operation in operations.values():
            if operation.tag == tag:
                parts += _operation(operation)
    return "\n".join(parts).rstrip() + "\n"


def _operation(operation: Operation) -> Iterable[str]:
    path = openapi.readable(operation.path)
    role = "anybody" if operation.role is None else operation.role.value
    yield f"``{operation.method} {path}`` ({role})"
    yield f"    {operation.summary}"
    if operation.description:
        yield from ("", *(f"    {line}" for line in operation.description.splitlines()), "")
    names = [f"``{param.name}``" for param in operation.query]
    if operation.query and operation.query[0].name == "page":
        names = ["as all lists"]
    if names:
        yield f"    Query: {', '.join(names)}."
    if operation.body is not None:
        yield f"    Body: {_fields(operation.body)}."
    yield f"    Answers {', '.join(map(str, operation.answers))}."
    yield ""


def _fields(body: Any) -> str:
    schema = openapi.schema_of(body)
    required = schema.get("required", [])
    names = [
        f"``{name}``" + ("" if name in required else " (optional)") for name in schema["properties"]
    ]
    return ", ".join(names)


if __name__ == "__main__":
    import pbcluster.controlplane.admin_api  # noqa: F401 - registers the routes

    print(page(OPERATIONS), end="")
