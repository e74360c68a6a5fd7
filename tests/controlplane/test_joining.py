"""Join tokens, who comes with one, and who is removed: the registry's rules, and the admin API."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from pbcluster import authority, wire
from pbcluster.controlplane import commands as c
from pbcluster.controlplane import join_tokens
from pbcluster.controlplane.registry import Registry
from pbcluster.errors import Conflict
from pbcluster.records import MemberRecord, NodeStatus, ProcessRecord
from pbcluster.transport.curve import generate_keys
from tests.controlplane.test_admin_api import AUTHORITY, AdminCase
from tests.controlplane.test_registry import AT, T1, Log, code

TOKEN_ID = "jointoken_0123456789abcdef"
DIGEST = hashlib.sha256(b"the token").digest()
PORTS = {"raft": 7009, "requests": 7109, "broadcasts": 7209}
KEY, OTHER_KEY = "a" * 40, "b" * 40


def member(number: int, key: str) -> MemberRecord:
    return MemberRecord(
        f"member_{number}",
        f"tcp://127.0.0.2:{7000 + number}",
        f"tcp://127.0.0.2:{7100 + number}",
        f"tcp://127.0.0.2:{7200 + number}",
        f"https://127.0.0.2:{7300 + number}",
        key,
    )


def raiser(error: Exception) -> Any:
    def raises(*args: object) -> None:
        raise error

    return raises


class Rules(SynchronousTestCase):
    """What the registry refuses, and that a refusal changes nothing."""

    def setUp(self) -> None:
        self.log = Log()

    def token(
        self, process_id: str = "node_x", role: str = "node", token_id: str = TOKEN_ID
    ) -> str:
        until = AT + timedelta(hours=1)
        made = c.CreateJoinToken(AT, token_id, role, process_id, DIGEST, b"sealed", "admin", until)
        return code(self.log(made))

    def join(
        self,
        process_id: str = "node_x",
        key: str = KEY,
        *,
        role: str = "node",
        at: datetime = AT,
        digest: bytes = DIGEST,
        record: MemberRecord | None = None,
        token_id: str = TOKEN_ID,
    ) -> str:
        process = ProcessRecord(process_id, role, key, at, token_id)
        return code(self.log(c.Join(at, token_id, digest, process, record)))

    def ids(self) -> list[str]:
        return [process.id for process in self.log.registry.roster.processes()]

    def test_one_use(self) -> None:
        """The second process is refused, in log order, whoever asked first; the first one may ask
        again and changes nothing by it."""
        self.token()
        self.assertEqual(self.join(), "")
        self.assertEqual(self.join(key=OTHER_KEY), "conflict")
        index = self.log.registry.roster.index
        self.assertEqual(self.join(), "")
        self.assertEqual(self.log.registry.roster.index, index)
        self.assertEqual(self.ids(), ["node_x"])
        known = self.log.registry.roster.process("node_x")
        assert known is not None
        self.assertEqual(known.curve_public, KEY)

    def test_another_leader_knows_the_same(self) -> None:
        """Who lost the answer to the death of a leader asks the next one, which has the log or a
        snapshot of it: the same process is in already, another one stays out."""
        self.token()
        self.join()
        again = Registry.from_bytes("example.com", self.log.registry.to_bytes())
        replayed = Registry("example.com")
        for index, keyed in enumerate(self.log.entries, 1):
            replayed.apply(index, keyed)
        for registry in (again, replayed):
            for key, wanted in ((KEY, ""), (OTHER_KEY, "conflict")):
                process = ProcessRecord("node_x", "node", key, AT, TOKEN_ID)
                command = c.Join(AT, TOKEN_ID, DIGEST, process)
                told = registry.apply(registry.applied_index + 1, c.Keyed("", command))
                self.assertEqual(code(told), wanted)

    def test_bound_and_ended(self) -> None:
        """Another role, another id, a wrong token, a time that is over: refused; nobody is in."""
        self.token()
        for refused in (
            self.join(role="gateway"),
            self.join("node_y"),
        ):
            self.assertEqual(refused, "forbidden")
        self.assertEqual(self.join(digest=b"x" * 32), "unauthorized")
        self.assertEqual(self.join(at=AT + timedelta(hours=1)), "unauthorized")
        self.assertEqual(self.join(token_id="jointoken_ffffffffffffffff"), "unauthorized")
        self.assertEqual(self.ids(), [])
        # A leader whose clock is behind lets it in still: its clock alone counts.
        self.assertEqual(self.join(at=AT - timedelta(days=1)), "")

    def test_the_same_process_may_ask_again_after_the_end(self) -> None:
        """Its answer may have been lost at the last moment; for an hour, not for ever."""
        self.token()
        late = AT + timedelta(minutes=59)
        self.assertEqual(self.join(at=late), "")
        self.assertEqual(self.join(at=late + join_tokens.REPEAT - timedelta(seconds=1)), "")
        self.assertEqual(self.join(at=late + join_tokens.REPEAT), "unauthorized")

    def test_ids_and_keys_are_used_once(self) -> None:
        """No token for an id that somebody has or had; no second process with a key."""
        self.log.node("node_a")
        self.assertEqual(self.token("node_a"), "conflict")
        self.token()
        self.assertEqual(self.token(token_id="jointoken_1111111111111111"), "conflict")
        self.join()
        self.log(c.RevokeJoinToken(AT, TOKEN_ID))
        self.assertEqual(self.token(), "conflict")
        self.token("gateway_x", "gateway")
        self.assertEqual(self.join("gateway_x", role="gateway"), "conflict")
        self.assertEqual(self.join("gateway_x", OTHER_KEY, role="gateway"), "")

    def test_removal_is_for_good(self) -> None:
        """Neither its id nor its key comes back, by a token, by the settings, or by registering."""
        self.token()
        self.join()
        self.log.node("node_x")
        removed = self.log(c.RemoveProcess(AT, "node_x", "node"))
        assert removed.broadcast is not None
        self.assertEqual(
            (removed.broadcast.topic, removed.broadcast.node_id), ("node.down", "node_x")
        )
        self.assertEqual(code(self.log(c.RemoveProcess(AT, "node_x", "node"))), "")
        self.assertEqual(self.join(), "unauthorized")  # its token went with it
        self.assertEqual(self.token(), "conflict")
        self.assertEqual(code(self.log.node("node_x", "s2")), "forbidden")
        again = c.SetProcess(AT, ProcessRecord("node_x", "node", OTHER_KEY))
        self.assertEqual(code(self.log(again)), "conflict")
        same_key = c.SetProcess(AT, ProcessRecord("node_y", "node", KEY))
        self.assertEqual(code(self.log(same_key)), "conflict")
        self.assertEqual(list(self.log.registry.nodes()), [])

    def test_a_node_with_tenants(self) -> None:
        """It is removed by force only; then nothing can be placed there, and it stays in sight
        until its tenants are elsewhere."""
        self.log.node("node_a")
        self.log.node("node_b", "s2")
        self.log.tenant()
        self.log.assign()
        self.assertEqual(code(self.log(c.RemoveProcess(AT, "node_a", "node"))), "conflict")
        self.assertEqual(code(self.log(c.RemoveProcess(AT, "node_a", "node", True))), "")
        self.assertEqual([node.id for node in self.log.registry.nodes()], ["node_a", "node_b"])
        status = c.SetNodeStatus(AT, "node_a", 1, NodeStatus.HEALTHY)
        self.log(status)
        self.assertIs(self.log.registry.node("node_a").status, NodeStatus.DOWN)
        self.assertEqual(code(self.log.assign()), "no_capacity")
        self.assertEqual(code(self.log.assign(node_id="node_b")), "")
        self.assertEqual([node.id for node in self.log.registry.nodes()], ["node_b"])
        self.assertEqual(self.log.registry.tenant(T1).node_id, "node_b")

    def test_a_member(self) -> None:
        """It is in the roster at once; its id and key are as good as any process's."""
        self.token("member_9", "member")
        self.assertEqual(self.join("member_9", role="member", record=member(9, KEY)), "")
        self.assertEqual(self.log.registry.roster.member("member_9"), member(9, KEY))
        self.assertEqual(self.token("member_9", "member", "jointoken_2222222222222222"), "conflict")
        taken = c.SetProcess(AT, ProcessRecord("node_y", "node", KEY))
        self.assertEqual(code(self.log(taken)), "conflict")
        node = c.SetProcess(AT, ProcessRecord("member_8", "node", OTHER_KEY))
        self.assertEqual(code(self.log(node)), "")
        self.assertEqual(code(self.log(c.SetMember(AT, member(8, "c" * 40)))), "conflict")

    def test_bounds(self) -> None:
        """Tokens that ended make room, others do not."""
        for number in range(join_tokens.MAX_TOKENS):
            self.assertEqual(self.token(f"node_{number}", token_id=f"jointoken_{number:016x}"), "")
        full = self.token("node_y", token_id="jointoken_ffffffffffffffff")
        self.assertEqual(full, "conflict")
        later = AT + timedelta(hours=1)
        made = c.CreateJoinToken(
            later, "jointoken_ffffffffffffffff", "node", "node_y", DIGEST, b"", "admin", later
        )
        self.assertEqual(code(self.log(made)), "")

    def test_snapshots(self) -> None:
        """The whole state survives; what operators save has no token and no parcel in it."""
        self.token()
        self.token("gateway_x", "gateway", "jointoken_3333333333333333")
        self.join("gateway_x", role="gateway", token_id="jointoken_3333333333333333")
        self.log(c.RemoveProcess(AT, "gateway_x", "gateway"))
        registry = self.log.registry
        data = registry.to_bytes()
        self.assertEqual(Registry.from_bytes("example.com", data).to_bytes(), data)
        again = Registry.from_bytes("example.com", data)
        self.assertTrue(again.roster.is_former_process("gateway_x"))
        self.assertEqual([token.id for token in again.join_tokens], [TOKEN_ID])
        saved = registry.image(for_operators=True).to_bytes()
        self.assertNotIn(b"sealed", saved)
        self.assertIn(b"gateway_x", saved)


class OverHttp(AdminCase):
    """The same, asked as the command line asks."""

    def setUp(self) -> None:
        super().setUp()
        self.secret = "jointoken_0123456789abcdef." + "s" * 43
        self.keys = generate_keys()

    async def make(self, role: str = "node", name: str = "node_x", **more: Any) -> tuple[int, Any]:
        body = {
            "tokenID": self.secret.partition(".")[0],
            "role": role,
            "id": name,
            "sha256": hashlib.sha256(self.secret.encode()).hexdigest(),
            "parcel": base64.b64encode(b"sealed").decode(),
            "expiresIn": 600,
        }
        return await self.ask("POST", "/join-tokens", body | more)

    async def join(self, role: str = "node", name: str = "node_x", **more: Any) -> tuple[int, Any]:
        body = {
            "token": self.secret,
            "role": role,
            "id": name,
            "curvePublic": self.keys.public,
            "certificateRequest": authority.request(name).certificate.decode(),
        }
        return await self.ask("POST", "/join", body | more, token=None)

    async def test_a_node_joins(self) -> None:
        """It gets its parcel and a certificate for its role, name and key; the members let its key
        in. The answer comes again to the same key, and to no other."""
        status, made = await self.make()
        self.assertEqual((status, made["status"]), (201, "open"))
        asked = authority.request("somebody else")
        status, joined = await self.join(certificateRequest=asked.certificate.decode())
        self.assertEqual(status, 200, joined)
        self.assertEqual(base64.b64decode(joined["parcel"]), b"sealed")
        pair = authority.Pair(joined["certificate"].encode(), asked.key)
        now = datetime.now(UTC)
        name = "node_x.nodes.pbcluster.internal"
        self.assertTrue(authority.worth_keeping(AUTHORITY.certificate, pair, name, now))
        self.assertEqual(joined["authority"].encode(), AUTHORITY.certificate)
        process = self.world.registry.roster.process("node_x")
        assert process is not None
        self.assertEqual(process.curve_public, self.keys.public)
        self.assertEqual((await self.join())[0], 200)
        self.keys = generate_keys()
        self.assertEqual((await self.join())[0], 409)
        _, listed = await self.ask("GET", "/join-tokens")
        self.assertEqual([row["status"] for row in listed["items"]], ["used"])

    async def test_nothing_gives_a_token_away(self) -> None:
        """Neither logs nor answers, nor the audit trail, nor the registry, have it."""
        await self.make()
        await self.join()
        await self.join("gateway")
        secret = self.secret.partition(".")[2]
        trail = await self.ask("GET", "/audit")
        told = "".join(self.logged) + json.dumps(trail) + str(await self.ask("GET", "/join-tokens"))
        self.assertNotIn(secret, told)
        self.assertNotIn(secret.encode(), self.world.registry.to_bytes())
        actions = [(row["action"], row["target"], row["actor"]) for row in trail[1]["items"]]
        self.assertEqual(
            actions,
            [
                ("process.join", "node_x", TOKEN_ID),
                ("join-token.create", TOKEN_ID, "admin"),
            ],
        )

    async def test_two_at_once(self) -> None:
        """Of two that show one token in the same moment one is let in."""
        await self.make()
        both = []
        for _ in range(2):
            self.keys = generate_keys()
            both.append(Deferred.fromCoroutine(self.join()))
        answers = [await each for each in both]
        self.assertEqual(sorted(status for status, _ in answers), [200, 409])
        self.assertEqual(len(list(self.world.registry.roster.processes())), 1)

    async def test_refusals(self) -> None:
        """Each says what is wrong; a wrong request does not spend the token."""
        await self.make()
        for status, more in (
            (403, {"role": "gateway"}),
            (403, {"name": "node_y"}),
            (401, {"token": TOKEN_ID + "." + "t" * 43}),
            (401, {"token": "jointoken_ffffffffffffffff." + "t" * 43}),
            (400, {"token": "x"}),
            (400, {"curvePublic": ""}),
            (422, {"curvePublic": "'" * 40}),
            (422, {"certificateRequest": "x"}),
        ):
            self.assertEqual((await self.join(**more))[0], status, more)
        self.assertEqual((await self.join())[0], 200)

    async def test_guesses_are_limited(self) -> None:
        """After 20 wrong tokens an address is told to wait; the right one passes all the same."""
        await self.make()
        wrong = {"token": TOKEN_ID + "." + "t" * 43}
        told = [(await self.join(**wrong))[0] for _ in range(22)]
        self.assertEqual((told[0], told[-1]), (401, 429))
        self.assertEqual((await self.join())[0], 200)

    async def test_a_member_joins(self) -> None:
        """Its record is known and it is a learner; an address nobody can reach is refused before
        the token is spent."""
        await self.make("member", "member_9")
        reach = {
            "raft": "tcp://127.0.0.2:7009",
            "requests": "tcp://127.0.0.2:7109",
            "broadcasts": "tcp://127.0.0.2:7209",
            "admin": "https://127.0.0.2:7309",
        }
        for name, wrong in (
            ("requests", "tcp://0.0.0.0:7109"),
            ("admin", "https://a.name:1"),
            ("raft", ""),
        ):
            status, told = await self.join("member", "member_9", **reach | {name: wrong})
            self.assertEqual(status, 422, told)
        status, joined = await self.join("member", "member_9", **reach)
        self.assertEqual(status, 200, joined)
        self.assertIn("member_9", self.world.consensus.conf.learners)
        certificate = x509.load_pem_x509_certificate(joined["certificate"].encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(
            [str(ip) for ip in names.get_values_for_type(x509.IPAddress)], ["127.0.0.2"]
        )
        self.assertEqual((await self.join("member", "member_9", **reach))[0], 200)

    async def test_a_member_that_cannot_join_now(self) -> None:
        """While another one is joining its token is not spent; one that went away in between is
        removed like any other."""
        await self.make("member", "member_9")
        reach = {use: f"tcp://127.0.0.2:{port}" for use, port in PORTS.items()}
        reach["admin"] = "https://127.0.0.2:7309"
        group = self.api._group
        self.patch(group, "check_add", raiser(Conflict("another change is under way")))
        self.assertEqual((await self.join("member", "member_9", **reach))[0], 503)
        _, listed = await self.ask("GET", "/join-tokens")
        self.assertEqual([row["status"] for row in listed["items"]], ["open"])
        self.patch(group, "check_add", lambda member: None)
        self.patch(group, "add_member", raiser(Conflict("another change is under way")))
        self.assertEqual((await self.join("member", "member_9", **reach))[0], 503)
        self.assertIsNotNone(self.world.registry.roster.member("member_9"))
        self.assertEqual((await self.ask("DELETE", "/members/member_9"))[0], 200)
        self.assertTrue(self.world.registry.roster.is_former("member_9"))
        self.assertEqual((await self.join("member", "member_9", **reach))[0], 401)

    async def test_revoked(self) -> None:
        """A revoked token lets nobody in."""
        await self.make()
        self.assertEqual((await self.ask("DELETE", f"/join-tokens/{TOKEN_ID}"))[0], 200)
        self.assertEqual((await self.join())[0], 401)
        self.assertEqual((await self.ask("DELETE", f"/join-tokens/{TOKEN_ID}"))[0], 404)

    async def test_the_authority_is_public(self) -> None:
        """Anybody may see its certificate."""
        status, shown = await self.ask("GET", "/authority", token=None)
        self.assertEqual((status, shown["certificate"].encode()), (200, AUTHORITY.certificate))

    async def test_gateways_come_and_go(self) -> None:
        """Nodes are told of a gateway that joined, and that it was removed."""
        await self.make("gateway", "gateway_x")
        await self.join("gateway", "gateway_x")
        _, listed = await self.ask("GET", "/gateways")
        self.assertEqual(
            [(row["id"], row["joinToken"]) for row in listed["items"]], [("gateway_x", TOKEN_ID)]
        )
        told = await self.world.requests._members(None, wire.ListMembers())  # type: ignore[arg-type]
        self.assertEqual((told.gateways, told.former_gateways), (("gateway_x",), ()))
        self.assertEqual((await self.ask("DELETE", "/gateways/gateway_x"))[0], 200)
        self.assertEqual((await self.ask("DELETE", "/gateways/gateway_y"))[0], 404)
        told = await self.world.requests._members(None, wire.ListMembers())  # type: ignore[arg-type]
        self.assertEqual((told.gateways, told.former_gateways), ((), ("gateway_x",)))

    async def test_a_removed_node_is_not_heard(self) -> None:
        """It has a tenant: 409, unless by force. Then all it says is refused, its tenant is placed
        on another node, and it is gone from the list."""
        await self.create("shop")
        shop = self.world.registry.tenant("shop")
        loser = shop.node_id
        moved: Deferred[None] = Deferred()

        def applied(_: object) -> None:
            if self.world.registry.tenant("shop").node_id != loser and not moved.called:
                moved.callback(None)

        self.world.consensus.subscribe(applied)
        self.assertEqual((await self.ask("DELETE", f"/nodes/{loser}"))[0], 409)
        status, told = await self.ask("DELETE", f"/nodes/{loser}?force=true")
        self.assertEqual((status, told["left"]), (200, 1))
        await moved
        _, listed = await self.ask("GET", "/nodes")
        self.assertNotIn(loser, [row["id"] for row in listed["items"]])
        self.assertTrue((await self.ask("GET", f"/nodes/{loser}"))[1]["removed"])
