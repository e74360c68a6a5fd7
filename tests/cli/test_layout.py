"""The cluster directory: the plan's written form, and files that are whole or absent."""

import os
import stat
import tomllib

import attrs
from hypothesis import given
from hypothesis import strategies as st

from pbcluster import config
from pbcluster.cli import initialise, layout, secret_files
from pbcluster.cli.initialise import Wish
from pbcluster.cli.layout import ClusterDir
from pbcluster.errors import ConfigError, InvalidInput
from tests.cli.support import DirectoryTestCase

WORDS = st.text(st.characters(exclude_categories=("Cs",)))
KEYS = st.text("abcdefgh_0123456789", min_size=1)
VALUES = WORDS | st.integers(-(2**62), 2**62) | st.booleans() | st.lists(WORDS)
TABLES = st.dictionaries(KEYS, VALUES, max_size=4)


class TomlTests(DirectoryTestCase):
    @given(st.dictionaries(KEYS, VALUES | TABLES | st.lists(TABLES, min_size=1), max_size=5))
    def test_what_is_written_is_read(self, content: dict[str, object]) -> None:
        """TOML that we write gives the same content back, whatever the strings hold."""
        self.assertEqual(tomllib.loads(layout.to_toml(content)), content)

    def test_mode_from_the_first_byte(self) -> None:
        """A file is replaced whole and nothing is left beside it; its mode is as asked."""
        file = self.root / "deep" / "secret"
        layout.write_file(file, "one", 0o600)
        layout.write_file(file, "two", 0o600)
        self.assertEqual(file.read_text(), "two")
        self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(file.parent), ["secret"])


class PlanTests(DirectoryTestCase):
    def test_round_trip(self) -> None:
        """cluster.toml gives the plan back, further settings included."""
        wish = Wish(gateway_port=0, admin_port=0, nodes=3, settings={"node": {"capacity": 5}})
        plan = initialise.initialise(self.where, wish)
        self.assertEqual(self.where.load_plan(), plan)
        self.assertEqual(plan.settings, {"node": {"capacity": 5}})

    def test_damaged(self) -> None:
        """A cluster.toml that lacks something or holds nonsense is one sentence with its name."""
        plan = initialise.new_plan(Wish(gateway_port=0, admin_port=0))
        whole = layout.plan_content(plan)
        damaged = {
            "cluster_id": {k: v for k, v in whole.items() if k != "cluster_id"},
            "processes": whole | {"processes": []},
            "kind": whole | {"processes": [{"kind": "king", "id": "a", "ports": {}}]},
            "port": whole
            | {"processes": [{"kind": "node", "id": "node_1", "ports": {"http": 70000}}]},
            "gateway": whole | {"processes": whole["processes"][:-1]},
            "settings": whole | {"settings": {"king": {}}},
        }
        for word, content in damaged.items():
            with self.assertRaisesRegex(ConfigError, f"(?s)here.*{word}"):
                layout.parse_plan(content, "here")

    def test_no_cluster(self) -> None:
        """A directory without a cluster says which command makes one."""
        with self.assertRaisesRegex(ConfigError, "pbcluster init --dir"):
            ClusterDir.at(self.root / "nothing").load_plan()


class InitialiseTests(DirectoryTestCase):
    wish = Wish(gateway_port=0, admin_port=0)

    def test_every_service_can_load_its_files(self) -> None:
        """What init writes passes the services' own checks, with keys that belong together."""
        plan = initialise.initialise(self.where, self.wish)
        kinds = {
            "member": config.MemberConfig,
            "node": config.NodeConfig,
            "gateway": config.GatewayConfig,
        }
        peers = config.load_peers(self.where.peers_file)
        for process in plan.processes:
            secrets = config.load_secrets(self.where.secrets(process.id))
            if process.kind == "s3":
                continue
            loaded = config.load(kinds[process.kind], self.where.config(process.id))
            self.assertEqual(loaded.cluster_id, plan.cluster_id)
            self.assertFalse(loaded.insecure_plain_sockets)
            self.assertEqual(loaded.data_dir.resolve(), self.where.data(process.id))
            self.assertEqual(peers[process.id].role, process.kind)
            self.assertEqual(
                secret_files.curve_pair(secrets.curve_secret)[1], peers[process.id].curve_public
            )
        node = config.load_secrets(self.where.secrets("node_1"))
        gateway = config.load_secrets(self.where.secrets("gateway_1"))
        self.assertEqual(dict(node.gateway_keys), dict(gateway.gateway_keys))
        self.assertEqual(
            (node.s3_access_key, node.s3_secret_key), secret_files.s3_keys(self.where, plan)
        )

    def test_secrets_are_private(self) -> None:
        """Token and secrets are for their owner only, and stand in no other file."""
        initialise.initialise(self.where, self.wish)
        private = [self.where.token_file, *(self.where.root / "secrets").iterdir()]
        for file in private:
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600, file)
        values = [self.where.token()]
        for file in private[1:]:
            found = attrs.asdict(config.load_secrets(file))
            found |= found.pop("gateway_keys")
            values += [value for value in found.values() if value]
        public = [self.where.plan_file, *(self.where.root / "config").iterdir()]
        for file in public:
            text = file.read_text()
            self.assertEqual([value for value in values if value in text], [], file)

    def test_never_over_another(self) -> None:
        """init refuses a directory that holds a cluster."""
        initialise.initialise(self.where, self.wish)
        with self.assertRaisesRegex(ConfigError, "holds a cluster already"):
            initialise.initialise(self.where, self.wish)

    def test_change_keeps_secrets(self) -> None:
        """Another port and one more node keep every secret, key and other port."""
        old = initialise.initialise(self.where, self.wish)
        kept = {p.id: self.where.secrets(p.id).read_text() for p in old.processes}
        token = self.where.token()
        new = initialise.ensure(self.where, Wish(nodes=3, gateway_port=0))
        self.assertEqual([p.id for p in new.of("node")], ["node_1", "node_2", "node_3"])
        self.assertNotEqual(new.gateway_port, old.gateway_port)
        for process in old.processes:
            self.assertEqual(self.where.secrets(process.id).read_text(), kept[process.id])
            if process.kind != "gateway":
                self.assertEqual(new.process(process.id), process)
        self.assertEqual(self.where.token(), token)
        third = config.load_secrets(self.where.secrets("node_3"))
        first = config.load_secrets(self.where.secrets("node_1"))
        self.assertEqual(third.tenant_key, first.tenant_key)

    def test_three_members_know_each_other(self) -> None:
        """Each member's file names the two others by id, each port is there once, and every member
        may begin with an empty store: once, not again when the directory is repaired."""
        plan = initialise.initialise(self.where, attrs.evolve(self.wish, members=3))
        ids = [member.id for member in plan.of("member")]
        self.assertEqual(ids, ["member_1", "member_2", "member_3"])
        every = [port for process in plan.processes for port in process.ports.values()]
        self.assertEqual(len(set(every)), len(every))
        for member in plan.of("member"):
            loaded = config.load(config.MemberConfig, self.where.config(member.id))
            others = [other for other in plan.of("member") if other != member]
            self.assertEqual(
                loaded.raft_peers,
                tuple(f"tcp://127.0.0.1:{o.ports['raft']}#{o.id}" for o in others),
            )
            self.assertEqual(
                loaded.admin_peers,
                tuple(f"http://127.0.0.1:{o.ports['admin']}#{o.id}" for o in others),
            )
            for use, told in (
                ("requests", loaded.request_peers),
                ("broadcasts", loaded.broadcast_peers),
            ):
                wanted = tuple(f"tcp://127.0.0.1:{o.ports[use]}#{o.id}" for o in others)
                self.assertEqual(told, wanted)
            marker = self.where.data(member.id) / config.FIRST_START
            marker.unlink()
            initialise.ensure(self.where, Wish())
            self.assertFalse(marker.exists())
        with self.assertRaisesRegex(
            InvalidInput, "--members is 5, but this cluster has 3: .*members add"
        ):
            initialise.ensure(self.where, Wish(members=5))
        self.assertEqual(initialise.ensure(self.where, Wish(members=3)), plan)

    def test_one_member_is_alone(self) -> None:
        """With --members 1 there is one, with no peers; it can get some later."""
        plan = initialise.initialise(self.where, attrs.evolve(self.wish, members=1))
        loaded = config.load(config.MemberConfig, self.where.config("member_1"))
        self.assertEqual((len(plan.of("member")), loaded.raft_peers), (1, ()))
        self.assertIn("raft", plan.of("member")[0].ports)
        marker = self.where.data("member_1") / config.FIRST_START
        self.assertEqual(marker.read_text(), "found\n")

    def test_members_of_a_new_cluster(self) -> None:
        """Three, unless something else is wished."""
        plan = initialise.initialise(self.where, self.wish)
        self.assertEqual(len(plan.of("member")), 3)

    def test_nothing_wished_changes_nothing(self) -> None:
        """up without options runs the plan as it is."""
        plan = initialise.initialise(self.where, self.wish)
        self.assertEqual(initialise.ensure(self.where, Wish()), plan)

    def test_wishes_that_cannot_be(self) -> None:
        """Wrong numbers and names are refused with the option and what is allowed."""
        wrong = {
            "--nodes": Wish(nodes=0),
            "--nodes is 33": Wish(nodes=33),
            "--members is 2; allowed: 1, 3, 5": Wish(members=2),
            "--base-domain": Wish(base_domain="a_b"),
            "--admin-port": Wish(gateway_port=9000, admin_port=9000),
        }
        for word, wish in wrong.items():
            with self.assertRaisesRegex(InvalidInput, word):
                initialise.initialise(self.where, wish)
            self.assertFalse(self.where.exists())

    def test_unwritable(self) -> None:
        """A directory that cannot be written is one sentence with its name."""
        (self.root / "file").write_text("")
        with self.assertRaisesRegex(ConfigError, "cannot write .*file"):
            initialise.initialise(ClusterDir.at(self.root / "file" / "c"), self.wish)
