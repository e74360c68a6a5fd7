"""The tenant ``demo`` that ``make run`` greets a newcomer with.

Its login is made once and kept in ``DIR/demo.login`` (mode 0600), so that a second run prints the
same one.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from pathlib import Path

import attrs

from pbcluster.cli.admin import AdminClient, wait_tenant_answers
from pbcluster.cli.layout import DEFAULT_DIR, ClusterDir, Plan, write_file
from pbcluster.errors import Conflict

NAME = "demo"
EMAIL = "demo@example.com"
PASSWORD_BYTES = 12


@attrs.frozen
class Login:
    """A superuser's login. ``password`` is empty if it is not known here."""

    email: str
    password: str = attrs.field(repr=False)
    url: str

    @property
    def dashboard(self) -> str:
        """URL of PocketBase's dashboard."""
        return f"{self.url}/_/"

    def shown(self) -> dict[str, str]:
        """For ``--json``."""
        return attrs.asdict(self) | {"dashboard": self.dashboard}

    def text(self, where: ClusterDir) -> str:
        """What to try next, for a person: commands that can be copied as they stand."""
        command, at = _own_command(), dir_words(where)
        password = self.password or "(set when the tenant was created)"
        return "\n".join(
            (
                f"tenant {NAME!r} answers:",
                f"  dashboard  {self.dashboard}",
                f"  login      {self.email}   password  {password}",
                "",
                "try next:",
                "  * open the dashboard in a browser, sign in, make a collection",
                f"  * curl {self.url}/api/health",
                f"  * {command} status{at}   shows what runs where",
                f"  * {command} tenants create shop --superuser me@example.com{at}",
                f"  * {command} tenants show {NAME}{at}   names its node: kill -9 that node's pid "
                "and reload the page",
            )
        )


def _own_command() -> str:
    """How this very command was called, if it was called by its name."""
    called = Path(sys.argv[0])
    return os.path.relpath(called) if called.name == "pbcluster" else "pbcluster"


def dir_words(where: ClusterDir) -> str:
    """The ``--dir`` that a command needs here, with a space before; nothing for the default."""
    if where == ClusterDir.at(DEFAULT_DIR):
        return ""
    return f" --dir {shlex.quote(os.path.relpath(where.root))}"


def generate_password() -> str:
    """A password for a person to copy: 16 characters of letters, digits, - and _."""
    return secrets.token_urlsafe(PASSWORD_BYTES)


def ensure(where: ClusterDir, plan: Plan) -> Login:
    """The demo tenant exists and answers when this returns.

    :raises PBClusterError: it could not be created, or does not answer.
    """
    client = AdminClient.of(plan, where.token())
    password = _stored_password(where)
    fresh = password or generate_password()
    if not password:
        # Kept before it is used: a login that was set and then lost would be worse.
        write_file(where.demo_file, json.dumps({"email": EMAIL, "password": fresh}) + "\n", 0o600)
    try:
        client.create_tenant(NAME, EMAIL, fresh)
        password = fresh
    except Conflict:
        if not password:
            where.demo_file.unlink(missing_ok=True)
    wait_tenant_answers(plan.gateway_url, f"{NAME}.{plan.base_domain}")
    return Login(EMAIL, password, plan.tenant_url(NAME))


def _stored_password(where: ClusterDir) -> str:
    try:
        stored = json.loads(where.demo_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(stored.get("password", "")) if isinstance(stored, dict) else ""
