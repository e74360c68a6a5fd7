"""Commands and the client where there are several members."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import initialise, ports, spec
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.http import Unreachable
from pbcluster.cli.initialise import Wish
from pbcluster.errors import Unavailable
from tests.cli.support import DirectoryTestCase


class FakeMember:
    """Gives its answers in turn, the last one for ever; remembers what was asked."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, str, bytes]] = []
        member = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                key = self.headers.get("Idempotency-Key", "")
                member.asked.append((self.command, self.path, key, self.rfile.read(length)))
                last = len(member.answers) == 1
                status, body = member.answers[0] if last else member.answers.pop(0)
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer

            def log_message(self, *args: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def refusal(code: str) -> tuple[int, Any]:
    return 503, {"status": 503, "message": "not now", "data": {"code": code}}


class ClientTests(SynchronousTestCase):
    def member(self, *answers: tuple[int, Any]) -> FakeMember:
        found = FakeMember(*answers)
        self.addCleanup(found.close)
        return found

    def dead(self) -> str:
        picker = ports.Picker(0, 0, None)
        return f"http://127.0.0.1:{picker.take('x')}"

    def test_another_member_is_asked(self) -> None:
        """A member that does not answer is passed over; where none does, the error says so."""
        living = self.member((200, {"ok": True}))
        client = AdminClient(self.dead(), "token", (living.url,))
        self.assertEqual(client.request("GET", "/tenants"), {"ok": True})
        with self.assertRaises(Unreachable):
            AdminClient(self.dead(), "token", (self.dead(),)).request("GET", "/tenants")

    def test_an_election_is_waited_for_with_the_same_key(self) -> None:
        """While there is no leader, or its answer is unknown, a creation is repeated: under one
        key, so that it is done once. Another refusal is final. One member alone elects itself."""
        member = self.member(refusal("not_leader"), refusal("deadline"), (201, {"id": "t"}))
        client = AdminClient(member.url, "token", (member.url,))
        self.assertEqual(client.request("POST", "/tenants", {"name": "a"}), {"id": "t"})
        self.assertEqual(len(member.asked), 3)
        keys = {key for _, _, key, _ in member.asked}
        self.assertEqual(len(keys), 1)
        self.assertNotIn("", keys)
        client.request("POST", "/tenants", {"name": "b"})
        self.assertNotIn(member.asked[-1][2], keys)
        final = self.member(refusal("no_capacity"))
        with self.assertRaises(Unavailable):
            AdminClient(final.url, "token", (final.url,)).request("POST", "/tenants", {})
        self.assertEqual(len(final.asked), 1)
        alone = self.member(refusal("not_leader"), (200, {"ok": True}))
        self.assertEqual(AdminClient(alone.url, "token").request("GET", "/"), {"ok": True})


class LeaderTests(DirectoryTestCase):
    def test_the_leader_may_be_of_another_machine(self) -> None:
        """Who of this directory is asked names it; what it says of the nodes counts."""
        wish = Wish(nodes=1, members=1, gateway_port=0, admin_port=0)
        plan = initialise.initialise(self.where, wish)
        told = {"leader": True, "nodes": {"node_1": {"alive": True}}}
        leader = FakeMember((200, told))
        rows = {"items": [{"id": "member_9", "role": "leader", "admin": leader.url}]}
        own = FakeMember((200, {"leader": "member_9"}), (200, rows))
        for each in (leader, own):
            self.addCleanup(each.close)
        (member,) = plan.of("member")
        moved = attrs.evolve(member, ports=member.ports | {"admin": own.server.server_address[1]})
        processes = tuple(moved if each is member else each for each in plan.processes)
        view = spec._leaders_view(attrs.evolve(plan, processes=processes), "token")
        self.assertEqual(view, told)
