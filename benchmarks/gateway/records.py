"""A collection with a public rule and a few records, in any PocketBase that answers at a URL."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

COLLECTION = "posts"
COUNT = 50


def call(url: str, host: str, method: str, path: str, body: Any = None, token: str = "") -> Any:
    headers = {"Host": host, "Content-Type": "application/json"}
    if token:
        headers["Authorization"] = token
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, content, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or b"null")


def superuser(url: str, host: str, email: str, password: str) -> str:
    """A superuser's token."""
    login = {"identity": email, "password": password}
    path = "/api/collections/_superusers/auth-with-password"
    return str(call(url, host, "POST", path, login)["token"])


def settings(url: str, host: str, token: str) -> dict[str, Any]:
    """Those of PocketBase's settings that change what a request costs: what it writes into its own
    request log, and which headers tell it a client's address."""
    found = call(url, host, "GET", "/api/settings", token=token)
    return {name: found[name] for name in ("logs", "trustedProxy")}


def fill(url: str, host: str, token: str) -> str:
    """Make the collection and its records.

    :returns: the id of one.
    """
    fields = [{"name": name, "type": "text"} for name in ("title", "body")]
    collection = {
        "name": COLLECTION,
        "type": "base",
        "fields": fields,
        "listRule": "",
        "viewRule": "",
    }
    call(url, host, "POST", "/api/collections", collection, token)
    rows = f"/api/collections/{COLLECTION}/records"
    made = [
        call(url, host, "POST", rows, {"title": f"post {n}", "body": "x" * 60}, token)
        for n in range(COUNT)
    ]
    return str(made[0]["id"])
