"""When keys are not exchanged, and how the files look between the steps."""

import os

from twisted.trial.unittest import SynchronousTestCase

from pbcluster import config
from pbcluster.cli import initialise, procfs, rereads, secret_files, state
from pbcluster.cli.initialise import Wish
from pbcluster.cli.rotating import Rotation
from pbcluster.cli.state import ClusterState, ProcessState
from pbcluster.errors import ConfigError, Conflict
from tests.cli.support import DirectoryTestCase


class Admin:
    """As much of the admin API as is asked before."""

    def __init__(self, **rows: list[dict[str, object]]) -> None:
        self.rows = rows

    def all(self, what: str) -> list[dict[str, object]]:
        return self.rows.get(what, [])


class RefusalTests(DirectoryTestCase):
    def rotation(self, states: dict[str, str], **rows: list[dict[str, object]]) -> Rotation:
        plan = initialise.initialise(self.where, Wish(gateway_port=0, admin_port=0, nodes=1))
        me = procfs.identify(os.getpid())
        assert me is not None
        state.write_supervisor(self.where, me)
        processes = tuple(
            ProcessState(
                kind=p.kind, id=p.id, state=states.get(p.id, state.SERVING), address="", identity=me
            )
            for p in plan.processes
        )
        state.write_state(self.where, ClusterState(phase=state.SERVING, processes=processes))
        admin: object = Admin(**rows)
        return Rotation(self.where, plan, admin, lambda line: None)  # type: ignore[arg-type]

    def test_everything_must_serve(self) -> None:
        """Who does not is named."""
        rotation = self.rotation({"node_1": state.RESTARTING})
        error = self.assertRaises(ConfigError, rotation.check)
        self.assertIn("node_1 does not serve", str(error))

    def test_processes_of_other_hosts(self) -> None:
        """They would keep the former keys, so nothing is changed; they are named."""
        rotation = self.rotation({}, nodes=[{"id": "node_1"}, {"id": "node_far"}])
        error = self.assertRaises(Conflict, rotation.check)
        self.assertIn("node_far have files of their own", str(error))
        self.rotation_is_fine()

    def rotation_is_fine(self) -> None:
        plan = self.where.load_plan()
        admin: object = Admin(nodes=[{"id": "node_1"}])
        Rotation(self.where, plan, admin, lambda line: None).check()  # type: ignore[arg-type]

    def test_two_voters_are_too_few(self) -> None:
        """Nothing was changed."""
        rotation = self.rotation({}, members=[{"id": "member_1", "voter": True}] * 2)
        before = self.where.peers_file.read_text()
        restarter: object = None
        self.assertRaises(Conflict, rotation.processes, restarter)
        self.assertEqual(self.where.peers_file.read_text(), before)

    def test_an_s3_of_your_own(self) -> None:
        """The command says where its keys go, and changes nothing."""
        rotation = self.rotation({})
        rotation.plan.settings["node"] = {"s3_endpoint": "https://s3.example.com"}
        restarter: object = None
        error = self.assertRaises(ConfigError, rotation.s3, restarter)
        self.assertIn("secrets/s3_1.toml", str(error))


class FilesTests(DirectoryTestCase):
    def test_what_is_accepted_too_stays(self) -> None:
        """Writing all files anew, as each restart does, keeps what is accepted beside the keys; no
        node gets what S3 alone accepts."""
        plan = initialise.initialise(self.where, Wish(gateway_port=0, admin_port=0, nodes=1))
        secret_files.change(self.where, "node_1", {"gateway_keys_also": {"gateway_1": ["k"]}})
        secret_files.change(self.where, "member_1", {"admin_token_hashes_also": ["h"]})
        secret_files.change(self.where, "s3_1", {"s3_keys_also": {"a": "b"}})
        secret_files.accept_peer_keys(self.where, {"node_1": ["x" * 40]})
        initialise.write_all(self.where, plan)
        node = config.load_secrets(self.where.secrets("node_1"))
        self.assertEqual((node.gateway_keys_also, node.s3_keys_also), ({"gateway_1": ["k"]}, {}))
        member = config.load_secrets(self.where.secrets("member_1"))
        self.assertEqual(member.admin_token_hashes_also, ["h"])
        self.assertEqual(secret_files.accepted_s3_keys(self.where, plan), {"a": "b"})
        peers = config.load_peers(self.where.peers_file)
        self.assertEqual(peers["node_1"].curve_also, ("x" * 40,))
        self.assertEqual(peers["member_1"].curve_also, ())
        secret_files.accept_peer_keys(self.where, {})
        self.assertEqual(config.load_peers(self.where.peers_file)["node_1"].curve_also, ())


class CountTests(SynchronousTestCase):
    def test_counts_of_a_metrics_page(self) -> None:
        """Each service's own, and each worker's."""
        page = (
            "# HELP pbcluster_node_secrets_reloads x\n"
            "pbcluster_node_secrets_reloads 2.0\n"
            'pbcluster_gateway_config_reloads{worker="1"} 3\n'
            "pbcluster_gateway_master_config_reloads 1\n"
            "pbcluster_node_secrets_reload_failed 0.0\n"
        )
        self.assertEqual(
            rereads.counted(page),
            {
                "pbcluster_node_secrets_reloads": 2.0,
                'pbcluster_gateway_config_reloads{worker="1"}': 3.0,
                "pbcluster_gateway_master_config_reloads": 1.0,
            },
        )
