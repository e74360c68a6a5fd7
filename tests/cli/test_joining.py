"""``join`` and its tokens: what is written, what is shown to whom, what goes on after a failure."""

from __future__ import annotations

import base64
import json
import ssl
import stat
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import attrs
from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import authority, config
from pbcluster.cli import growing, initialise, join_token, joining, parcels, running, secret_files
from pbcluster.cli.admin import AdminClient
from pbcluster.cli.http import Unreachable
from pbcluster.cli.initialise import Wish
from pbcluster.cli.join_token import JoinToken
from pbcluster.cli.layout import ClusterDir, Plan
from pbcluster.cli.main import cli
from pbcluster.errors import (
    ConfigError,
    Conflict,
    InvalidInput,
    PBClusterError,
    RemoteProtocolError,
    Unauthorized,
)
from pbcluster.transport.curve import generate_keys
from tests.cli.support import DirectoryTestCase

FIRST, OTHER = "127.0.0.2", "127.0.0.3"
MEMBER = {
    "id": "member_1",
    "raft": f"tcp://{FIRST}:7000",
    "requests": f"tcp://{FIRST}:5555",
    "broadcasts": f"tcp://{FIRST}:5556",
    "admin": f"https://{FIRST}:8095",
    "curvePublic": generate_keys().public,
}


class Quiet(ThreadingHTTPServer):
    """Clients that trust nobody are part of these tests."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class FirstHost:
    """The admin API of a first host as far as ``join`` needs it, over real TLS, in a thread."""

    def __init__(self, *, clock: datetime | None = None) -> None:
        now = clock or datetime.now(UTC)
        self.authority = authority.new("cluster_1", now)
        self.asked: list[dict[str, Any]] = []
        #: Before the next answers: a status and content instead, or None: the answer is lost.
        self.instead: list[tuple[int, Any] | None] = []
        self.parcel = b""
        pair = authority.issue(self.authority, "member", "member_1", now, addresses=(FIRST,))
        self.server = Quiet((FIRST, 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "both.pem")
            file.write_bytes(pair.certificate + pair.key)
            context.load_cert_chain(file)
        # In the connection's own thread: a client that goes away in it must not end the server.
        self.server.socket = context.wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://{FIRST}:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def token(self, role: str = "node", **parcel: Any) -> JoinToken:
        pin = authority.fingerprint(self.authority.certificate)
        made = join_token.new(role, f"{role}_x", pin, (self.url,))
        whole = {
            "settings": {"log_format": "json"},
            "secrets": {},
            "authority_key": self.authority.key.decode() if role == "member" else "",
            "base_domain": "example.com",
            "node_tls": False,
        }
        self.parcel = join_token.seal(made, whole | parcel)
        return made

    def answer(self, path: str, body: Any) -> tuple[int, Any] | None:
        if path == "/api/cp/authority":
            return 200, {"certificate": self.authority.certificate.decode()}
        assert path == "/api/cp/join", path
        self.asked.append(body)
        if self.instead:
            return self.instead.pop(0)
        certificate = authority.certify(
            self.authority,
            body["role"],
            body["id"],
            body["certificateRequest"].encode(),
            datetime.now(UTC),
        )
        return 200, {
            "id": body["id"],
            "role": body["role"],
            "clusterID": "cluster_1",
            "members": [MEMBER],
            "certificate": certificate.decode(),
            "authority": self.authority.certificate.decode(),
            "parcel": base64.b64encode(self.parcel).decode(),
        }

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        host = self

        class Handler(BaseHTTPRequestHandler):
            def any(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                found = host.answer(self.path, body)
                if found is None:
                    return  # the connection ends without an answer
                text = json.dumps(found[1]).encode()
                self.send_response(found[0])
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = any

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


class Joins(DirectoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.host = FirstHost()
        self.addCleanup(self.host.close)
        self.said: list[str] = []

    def join(self, token: JoinToken, **more: Any) -> Plan:
        given: dict[str, Any] = {"address": OTHER, "port": 0} | more
        return joining.join(
            self.where, token, given["address"], given["port"], self.said.append, lambda s: None
        )

    def refused(self, token: JoinToken, kind: type[PBClusterError], **more: Any) -> str:
        return str(self.assertRaises(kind, self.join, token, **more))

    def test_a_node(self) -> None:
        """Its files are what its service reads, its secrets are private, its plan starts it; the
        secret key is in no request, and the token nowhere in the directory."""
        secrets = {"s3_access_key": "a", "s3_secret_key": "b", "tenant_key": "c"}
        token = self.host.token(
            secrets=secrets, settings={"s3_endpoint": "http://x:1", "s3_bucket": "bucket"}
        )
        plan = self.join(token)
        self.assertEqual(self.where.load_plan(), plan)
        self.assertEqual((plan.address, plan.joined), (OTHER, (MEMBER["admin"],)))
        loaded = config.load(config.NodeConfig, self.where.config("node_x"))
        self.assertEqual(loaded.members, (f"{MEMBER['requests']}#member_1",))
        self.assertEqual((loaded.listen[0], loaded.s3_bucket), (OTHER, "bucket"))
        own = config.load_secrets(self.where.secrets("node_x"))
        self.assertEqual((own.s3_secret_key, own.tenant_key), ("b", "c"))
        peers = config.load_peers(self.where.peers_file)
        self.assertEqual(secret_files.curve_pair(own.curve_secret)[1], peers["node_x"].curve_public)
        (asked,) = self.host.asked
        self.assertEqual(asked["curvePublic"], peers["node_x"].curve_public)
        self.assertNotIn(own.curve_secret, json.dumps(asked))
        self.assertNotIn("PRIVATE", json.dumps(asked))
        for file in (each for each in self.where.root.rglob("*") if each.is_file()):
            self.assertNotIn(token.secret, file.read_text(), file)
            if file.parent.name == "secrets":
                self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600, file)
        # `up` changes nothing of it, and takes no options.
        self.assertEqual(running.prepare(self.where, Wish()), plan)
        self.assertRaises(ConfigError, running.prepare, self.where, Wish(nodes=2))
        self.assertIn("holds node_x already", self.refused(token, ConfigError))

    def test_a_member(self) -> None:
        """It begins by joining, certifies others, and says of no other member where that is."""
        self.join(self.host.token("member", secrets={"admin_token_hash": "f" * 64}))
        loaded = config.load(config.MemberConfig, self.where.config("member_x"))
        marker = self.where.data("member_x") / config.FIRST_START
        self.assertEqual(marker.read_text(), "join\n")
        assert loaded.authority is not None
        self.assertEqual((loaded.authority / "ca.key").read_bytes(), self.host.authority.key)
        self.assertEqual(loaded.raft_peers, (f"{MEMBER['raft']}#member_1",))
        self.assertEqual((loaded.request_peers, loaded.admin_peers), ((), ()))
        (asked,) = self.host.asked
        self.assertEqual(asked["requests"], loaded.request_endpoint)
        self.assertEqual(asked["admin"], f"https://{OTHER}:{loaded.admin_listen[1]}")
        client = AdminClient("http://127.0.0.1:1", "token")
        self.assertRaises(ConfigError, growing.add, self.where, self.where.load_plan(), client, "x")

    def test_a_gateway_with_tls_to_nodes(self) -> None:
        """Its certificate belongs to the key that was made here."""
        self.join(
            self.host.token("gateway", node_tls=True, secrets={"gateway_keys": {"gateway_x": "k"}})
        )
        loaded = config.load(config.GatewayConfig, self.where.config("gateway_x"))
        assert loaded.node_tls is not None
        pair = authority.Pair(
            (loaded.node_tls / "certificate.pem").read_bytes(),
            (loaded.node_tls / "key.pem").read_bytes(),
        )
        name, now = "gateway_x.gateways.pbcluster.internal", datetime.now(UTC)
        self.assertTrue(authority.worth_keeping(self.host.authority.certificate, pair, name, now))

    def test_a_lost_answer(self) -> None:
        """The same keys are shown again, in the same call and in the next one."""
        token = self.host.token()
        self.host.instead = [
            None,
            (503, {"message": "no leader", "data": {}}),
            (409, {"message": "no"}),
        ]
        self.refused(token, Conflict)
        self.assertRaisesRegex(
            ConfigError, "repeat the `pbcluster join`", initialise.ensure, self.where, Wish()
        )
        self.join(token)
        self.assertEqual(len(self.host.asked), 4)
        for name in ("curvePublic", "certificateRequest", "token"):
            self.assertEqual(len({asked[name] for asked in self.host.asked}), 1, name)

    def test_a_disk_that_was_full(self) -> None:
        """Some files are missing; the same command completes the directory, with the same keys."""
        token = self.host.token("gateway", secrets={"gateway_keys": {"gateway_x": "k"}})
        whole = joining.write_file

        def full(file: Path, text: str, mode: int = 0o644) -> None:
            if file == self.where.plan_file:
                raise OSError(28, "No space left on device", str(file))
            whole(file, text, mode)

        self.patch(joining, "write_file", full)
        self.assertIn("No space left", self.refused(token, ConfigError))
        key = config.load_secrets(self.where.secrets("gateway_x")).curve_secret
        self.patch(joining, "write_file", whole)
        self.join(token)
        self.assertEqual(config.load_secrets(self.where.secrets("gateway_x")).curve_secret, key)

    def test_another_token_after_one_that_ended(self) -> None:
        """The directory of an attempt that came to nothing is used again."""
        self.host.instead = [(401, {"message": "the join token has ended"})]
        self.assertIn("has ended", self.refused(self.host.token(), Unauthorized))
        self.join(self.host.token("gateway", secrets={"gateway_keys": {"gateway_x": "k"}}))
        self.assertEqual(self.where.load_plan().processes[0].kind, "gateway")

    def test_another_cluster_at_the_address(self) -> None:
        """It is not shown the token."""
        token = attrs.evolve(self.host.token(), pin="0" * 64)
        self.assertIn("another fingerprint", self.refused(token, ConfigError))
        self.assertEqual(self.host.asked, [])

    def test_a_parcel_of_somebody_else(self) -> None:
        """What was not sealed under this token is not taken."""
        token = self.host.token()
        self.host.parcel = join_token.seal(attrs.evolve(token, secret="s" * 43), {})
        self.refused(token, RemoteProtocolError)
        self.assertFalse(self.where.exists())

    def test_wrong_places(self) -> None:
        """Address, port and directory are looked at before anything is asked."""
        token = self.host.token()
        self.assertIn("no address 192.0.2.1", self.refused(token, ConfigError, address="192.0.2.1"))
        self.assertIn("'0.0.0.0'", self.refused(token, ConfigError, address="0.0.0.0"))
        taken = self.host.server.server_address[1]
        told = self.refused(token, ConfigError, address=FIRST, port=taken)
        self.assertIn(f"port {taken} (http) at {FIRST} is in use", told)
        self.where.root.mkdir()
        (self.where.root / "mine").touch()
        self.assertIn("is not empty", self.refused(token, ConfigError))
        self.assertEqual(self.host.asked, [])

    def test_nobody_there(self) -> None:
        """Which addresses were tried is told; another member is asked then."""
        token = self.host.token()
        away = attrs.evolve(token, urls=(f"https://{OTHER}:1", token.urls[0]))
        self.join(away)
        self.assertEqual(len(self.host.asked), 1)
        self.where = ClusterDir.at(self.root / "d")
        gone = attrs.evolve(token, urls=(f"https://{OTHER}:1",))
        self.assertIn(f"{OTHER}:1", self.refused(gone, Unreachable))

    def test_a_clock_that_is_behind(self) -> None:
        """A certificate that is not valid yet is told to be a matter of clocks."""
        self.patch(joining, "ACCEPTED_WITHIN_S", 0.0)
        host = FirstHost(clock=datetime.now(UTC) + timedelta(days=1))
        self.addCleanup(host.close)
        self.assertIn("compare this machine's clock", self.refused(host.token(), Unreachable))


class Commands(DirectoryTestCase):
    def run_join(self, *arguments: str, given: str = "", **env: str) -> tuple[int, str]:
        whole = ["join", "--dir", str(self.where.root), *arguments]
        done = CliRunner().invoke(cli, whole, input=given, env=env)
        return done.exit_code, done.output

    def test_where_the_token_comes_from(self) -> None:
        """A file, standard input, the environment or an option; one of them."""
        host = FirstHost()
        self.addCleanup(host.close)
        host.instead = [(403, {"message": "seen"})] * 4
        text = join_token.encode(host.token())
        file = self.root / "token"
        file.write_text(text + "\n")
        at = ("--address", OTHER, "--port", "0")
        for code, output in (
            self.run_join("--token-file", str(file), *at),
            self.run_join("--token-file", "-", *at, given=text),
            self.run_join(*at, PBCLUSTER_JOIN_TOKEN=text),
            self.run_join("--token", text, *at),
        ):
            self.assertEqual(code, 1, output)
            self.assertIn("seen", output)
            self.assertNotIn(text, output)
        for arguments, word in (
            ((), "PBCLUSTER_JOIN_TOKEN"),
            (("--token", text, "--token-file", str(file)), "not both"),
            (("--token-file", str(self.root / "none")), "cannot read"),
            (("--token", "x"), "no join token"),
        ):
            code, output = self.run_join(*arguments)
            self.assertEqual(code, 2, output)
            self.assertIn(word, output)


class Tokens(SynchronousTestCase):
    token = join_token.new("node", "node_x", b"p" * 32, ("https://10.0.0.1:8095",))

    def test_there_and_back(self) -> None:
        """Its text is one word; its repr has no secret."""
        text = join_token.encode(self.token)
        self.assertEqual(join_token.decode(f" {text}\n"), self.token)
        self.assertNotIn(self.token.secret, repr(self.token))

    def test_damaged(self) -> None:
        """A token that was copied in part, changed or never was one is told so, and not shown."""
        text = join_token.encode(self.token)
        middle = len(text) // 2
        other = "A" if text[middle] != "A" else "B"
        for damaged in (
            text[:-1],
            text[1:],
            text[:middle] + other + text[middle + 1 :],
            "",
            "pbj1.",
            "pbj1.AAAA",
            "pbj1.\x00",
            text + "A" * 4000,
        ):
            error = self.assertRaises(InvalidInput, join_token.decode, damaged)
            self.assertIn("no join token", str(error))
            self.assertNotIn(self.token.secret[:10], str(error))

    def test_the_parcel_is_bound(self) -> None:
        """It opens under its own token only, for its own role and id."""
        sealed = join_token.seal(self.token, {"a": 1})
        self.assertEqual(join_token.unseal(self.token, sealed), {"a": 1})
        self.assertNotIn(b'"a"', sealed)
        for other in (
            attrs.evolve(self.token, secret="s" * 43),
            attrs.evolve(self.token, role="member"),
            attrs.evolve(self.token, process_id="node_y"),
        ):
            self.assertRaises(RemoteProtocolError, join_token.unseal, other, sealed)
        self.assertRaises(RemoteProtocolError, join_token.unseal, self.token, sealed[:-1])


class Parcels(DirectoryTestCase):
    def test_each_role_gets_its_own(self) -> None:
        """A node gets the keys of S3 and of tenants, a gateway its signing key, a member the
        authority's key and the hash of the admin token; nobody a CURVE key, and nothing else."""
        plan = initialise.initialise(
            self.where, Wish(address=FIRST, gateway_port=0, admin_port=0, members=1, nodes=1)
        )
        parcels.check_open(self.where, plan)
        node = parcels.make(self.where, plan, "node", "node_x")
        gateway = parcels.make(self.where, plan, "gateway", "gateway_x")
        member = parcels.make(self.where, plan, "member", "member_x")
        self.assertEqual(set(gateway["secrets"]), {"gateway_keys"})
        self.assertEqual(set(gateway["secrets"]["gateway_keys"]), {"gateway_x"})
        self.assertEqual(set(member["secrets"]), {"admin_token_hash"})
        self.assertTrue(member["authority_key"].startswith("-----BEGIN"))
        self.assertEqual((node["authority_key"], gateway["authority_key"]), ("", ""))
        own = attrs.asdict(config.load_secrets(self.where.secrets("node_1")))
        for name in ("s3_secret_key", "tenant_key", "gateway_seed"):
            self.assertEqual(node["secrets"][name], own[name])
        self.assertNotIn("curve_secret", node["secrets"])
        for parcel in (node, gateway, member):
            self.assertEqual(set(parcel["settings"]) & parcels.OWN, set())
        self.assertTrue(node["settings"]["s3_endpoint"].startswith(f"http://{FIRST}:"))

    def test_what_cannot_be_joined(self) -> None:
        """A cluster on loopback, and certificates of the operator's own."""
        plan = initialise.initialise(self.where, Wish(gateway_port=0, admin_port=0))
        self.assertRaisesRegex(ConfigError, "--address", parcels.check_open, self.where, plan)
        opened = attrs.evolve(plan, address=FIRST)
        own = attrs.evolve(opened, settings={"member": {"admin_tls": "/x"}})
        self.assertRaisesRegex(ConfigError, "admin_tls", parcels.check_open, self.where, own)
        joined = attrs.evolve(opened, joined=("https://10.0.0.1:1",))
        self.assertRaisesRegex(ConfigError, "first host", parcels.check_open, self.where, joined)


class Opened(DirectoryTestCase):
    def test_everything_is_at_the_address(self) -> None:
        """Every address of every process, and the certificate of the admin API."""
        wish = Wish(address=FIRST, gateway_port=0, admin_port=0)
        plan = initialise.initialise(self.where, wish)
        for process in plan.processes:
            if process.kind != "s3":
                text = self.where.config(process.id).read_text()
                self.assertNotIn("127.0.0.1", text)
                self.assertIn(FIRST, text)
        member = config.load(config.MemberConfig, self.where.config("member_1"))
        assert member.admin_tls is not None
        assert member.admin_ca is not None
        pair = authority.Pair(
            (member.admin_tls / "default.crt").read_bytes(),
            (member.admin_tls / "default.key").read_bytes(),
        )
        name, now = "member_1.members.pbcluster.internal", datetime.now(UTC)
        ca = member.admin_ca.read_bytes()
        self.assertTrue(authority.worth_keeping(ca, pair, name, now, (FIRST,)))
        self.assertFalse(authority.worth_keeping(ca, pair, name, now, (OTHER,)))
        again = initialise.ensure(self.where, Wish())
        self.assertEqual(again, plan)
        self.assertEqual((member.admin_tls / "default.crt").read_bytes(), pair.certificate)
        moved = initialise.ensure(self.where, Wish(address=OTHER))
        self.assertEqual((moved.host, moved.processes), (OTHER, plan.processes))
        self.assertNotEqual((member.admin_tls / "default.crt").read_bytes(), pair.certificate)

    def test_what_cannot_be(self) -> None:
        """Names, addresses of others, and sockets without encryption."""
        for address in ("localhost", "0.0.0.0", "224.0.0.1", "::1", "192.0.2.1", ""):
            self.assertRaises(ConfigError, initialise.check_wish, Wish(address=address))
        plain = Wish(address=FIRST, insecure_plain_sockets=True, gateway_port=0, admin_port=0)
        self.assertRaises(InvalidInput, initialise.initialise, self.where, plain)
