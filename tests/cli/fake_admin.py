"""An admin API and a gateway in one, as far as the commands need them, in a thread."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class FakeCluster:
    """Answers on a free port; remembers requests; its tenants are plain dictionaries."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.tenants: dict[str, dict[str, Any]] = {}
        self.passwords: dict[str, str] = {}
        self.refuse: tuple[int, dict[str, Any]] | None = None
        self.unready_answers = 0
        self.changing = 0
        self.filters: list[str] = []
        self.token_bodies: list[Any] = []
        #: The word of each deletion that had ``?purge=``.
        self.purged: list[str] = []
        #: So many changes find that somebody else was faster.
        self.meddling = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def answer(self, method: str, path: str, host: str, token: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(path)
        if not parts.path.startswith("/api/cp/"):
            if self.unready_answers:
                self.unready_answers -= 1
                return 503, {"status": 503, "message": "not yet", "data": {}}
            known = host.split(".", maxsplit=1)[0] in {
                tenant["name"] for tenant in self.tenants.values()
            }
            return (200, {}) if known else (404, {"status": 404, "message": "no", "data": {}})
        if token != f"Bearer {self.token}":
            return 401, {"status": 401, "message": "The token is missing or wrong.", "data": {}}
        if self.refuse:
            return self.refuse
        return self.admin(method, parts.path.removeprefix("/api/cp/"), parse_qs(parts.query), body)

    def admin(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> Any:
        what, _, name = path.partition("/")
        name, _, action = name.partition("/") if what == "tenants" else (name, "", "")
        if what == "health":
            return 200, {"leader": "member_1"}
        if what == "nodes":
            items = [{"id": "node_1", "status": "healthy", "activeCount": 1, "capacity": 200}]
            return 200, {"page": 1, "perPage": 200, "totalItems": 1, "items": items}
        if what in ("api-tokens", "audit"):
            return self.access(method, what, name, query, body)
        if what == "tokens":
            return self.tokens(method, name, body)
        if action == "give-away":
            assert body == {"acceptLoss": True}
            return 200, {"id": "tenant_x", "nodeID": "node_1", "degraded": False}
        if action == "rename":
            (tenant,) = (t for t in self.tenants.values() if t["name"] == name)
            tenant["name"] = body["name"]
            return 200, tenant
        if method == "POST" and not action:
            self.passwords[body["name"]] = body["superuser"]["password"]
            tenant = {
                "id": f"tenant_{body['name']:x>8}",
                "name": body["name"],
                "nodeID": "node_1",
                "version": 1,
                "customDomains": [],
                "quotas": {"burst": 3, "eventStreams": 0},
            }
            tenant |= {key: body[key] for key in body if key not in ("name", "superuser")}
            self.tenants[tenant["id"]] = tenant
            return 200, tenant
        if not name:
            page, size = int(query["page"][0]), 2
            items = list(self.tenants.values())
            shown = items[(page - 1) * size : page * size]
            return 200, {"page": page, "perPage": size, "totalItems": len(items), "items": shown}
        self.purged += query.get("purge", [])
        found = [t for t in self.tenants.values() if name in (t["id"], t["name"])]
        if not found:
            return 404, {"status": 404, "message": f"There is no tenant {name!r}.", "data": {}}
        if method == "POST":
            status = {"archive": "archived", "activate": "idle"}[action]
            found[0]["status"] = status
            return 200, found[0]
        if method == "PUT" and "customDomains" not in body:
            return self.change(found[0], body)
        if method == "DELETE":
            del self.tenants[found[0]["id"]]
            return 200, found[0] | {"status": "deleted"}
        if method == "PUT":
            if self.changing:
                self.changing -= 1
                found[0]["version"] += 1
            if body["version"] != found[0]["version"]:
                return 409, {"status": 409, "message": "It was changed meanwhile.", "data": {}}
            if "taken.example.com" in body["customDomains"]:
                return 409, {"status": 409, "message": "The domain is taken.", "data": {}}
            found[0]["customDomains"] = body["customDomains"]
            found[0]["version"] += 1
        return 200, found[0]

    def access(self, method: str, what: str, name: str, query: Any, body: Any) -> tuple[int, Any]:
        token = {"id": "apitoken_1", "name": "ci", "role": "viewer", "expired": False}
        if what == "audit":
            page, size = int(query["page"][0]), int(query["perPage"][0])
            self.filters.append(query.get("filter", [""])[0])
            items = [{"id": n, "action": f"a{n}"} for n in range(700, 0, -1)]
            return 200, {"totalItems": 700, "items": items[(page - 1) * size : page * size]}
        if method == "POST":
            self.token_bodies.append(body)
            return 201, token | {"token": "apitoken_1.secret", "expires": "soon"}
        if method == "DELETE":
            found = name == token["id"]
            return (200, token) if found else (404, {"status": 404, "message": "no such token"})
        return 200, {"page": 1, "perPage": 200, "totalItems": 1, "items": [token]}

    def tokens(self, method: str, name: str, body: Any) -> tuple[int, Any]:
        self.token_bodies.append(body)
        key = {"kid": "pb1", "status": "signs", "created": "now", "retired": None}
        if name and method == "GET":
            return 200, {"page": 1, "perPage": 200, "totalItems": 1, "items": [key]}
        if name:
            return 201, key
        return 201, {"token": "a.b.c" * 50, "tenantID": "t", "kid": "pb1", "expires": "soon"}

    def change(self, tenant: dict[str, Any], body: dict[str, Any]) -> tuple[int, Any]:
        """Quotas are replaced as a whole, under the version that was read."""
        if self.meddling:
            self.meddling -= 1
            tenant["version"] = tenant.get("version", 1) + 1
            tenant["quotas"] = tenant.get("quotas", {}) | {"memoryBytes": 5}
        if body.get("version") != tenant.get("version", 1):
            return 409, {"status": 409, "message": "It was changed meanwhile.", "data": {}}
        tenant["version"] = body["version"] + 1
        tenant.update({name: value for name, value in body.items() if name != "version"})
        return 200, tenant

    def handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def any(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                status, content = fake.answer(
                    self.command,
                    self.path,
                    self.headers["Host"],
                    self.headers.get("Authorization", ""),
                    body,
                )
                text = b"" if content is None else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PUT = do_DELETE = any

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler
