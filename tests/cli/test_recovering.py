"""``members recover``: what is written, in which order, and what an interruption leaves."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pbcluster import config, saved_state
from pbcluster.cli import initialise, procfs, recovering, state
from pbcluster.cli.initialise import Wish
from pbcluster.cli.layout import Plan
from pbcluster.errors import ConfigError, S3Unavailable
from pbcluster.generations import SETTLE_S, Generation, NotNewest
from pbcluster.saved_state import SavedState
from tests.cli.support import DirectoryTestCase


class RecoverTests(DirectoryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.plan = initialise.initialise(self.where, Wish(nodes=1, gateway_port=0, admin_port=0))
        self.file = self.root / "saved"
        self.saved = SavedState(self.plan.cluster_id, 7, "2026-01-01", b"\x92\x07\x00")
        self.file.write_bytes(saved_state.pack(self.saved))
        self.claims: list[tuple[str, str]] = []
        self.error: Exception | None = None
        self.shown: list[str] = []
        self.pauses: list[float] = []

        @contextlib.contextmanager
        def s3(*_: Any) -> Iterator[None]:
            yield

        self.patch(recovering, "s3_running", s3)
        self.patch(recovering, "bucket_of", lambda where, plan: None)
        self.patch(recovering, "claim_next", self.claim)

    def claim(self, bucket: object, old: str, new: str, now: datetime) -> Generation:
        self.claims.append((old, new))
        if self.error is not None:
            raise self.error
        return Generation(generation=2, cluster_id=new, previous=old, at=now.isoformat())

    def recover(self, of: str = "") -> Plan:
        plan = self.where.load_plan()
        return recovering.recover(
            self.where, plan, self.file, self.shown.append, self.pauses.append, of=of
        )

    def test_everything_is_of_the_new_cluster(self) -> None:
        """Every process gets the new id, every member the state, a marker, and an empty store; what
        a member had is moved aside; keys and the token stay."""
        (self.where.data("member_2") / "store").mkdir()
        key = self.where.secrets("member_2").read_text()
        fresh = self.recover()
        self.assertNotEqual(fresh.cluster_id, self.plan.cluster_id)
        self.assertEqual(self.claims, [(self.plan.cluster_id, fresh.cluster_id)])
        self.assertEqual(self.where.load_plan(), fresh)
        for process in fresh.processes:
            if process.kind != "s3":
                text = config.read_toml(self.where.config(process.id))
                self.assertEqual(text["cluster_id"], fresh.cluster_id)
        for member in fresh.of("member"):
            home = self.where.data(member.id)
            self.assertEqual((home / config.FIRST_START).read_text(), "recover\n")
            self.assertEqual(saved_state.read(home / config.RECOVERED), self.saved)
            self.assertEqual(len(list(home.iterdir())), 2)
        aside = self.where.root / "data" / f"member_2.of-{self.plan.cluster_id}"
        self.assertTrue((aside / "store").is_dir())
        self.assertEqual(self.where.secrets("member_2").read_text(), key)
        self.assertEqual(self.pauses, [SETTLE_S])
        self.assertFalse((self.where.run / "recovering").exists())

    def test_what_was_interrupted_goes_on_with_the_same_id(self) -> None:
        """S3's answer was lost, or the machine died after the claim: the id was noted before."""
        self.error = S3Unavailable("no answer")
        for _ in range(2):
            with self.assertRaises(S3Unavailable):
                self.recover()
        self.assertEqual(self.where.load_plan(), self.plan)
        self.error = None
        fresh = self.recover()
        self.assertEqual(self.claims, [(self.plan.cluster_id, fresh.cluster_id)] * 3)
        with self.assertRaisesRegex(ConfigError, f"say --of {self.plan.cluster_id}"):
            self.recover()
        again = self.recover(of=self.plan.cluster_id)
        self.assertEqual(self.claims[-1], (fresh.cluster_id, again.cluster_id))
        self.assertNotEqual(again.cluster_id, fresh.cluster_id)

    def test_who_comes_second_changes_nothing(self) -> None:
        """Another recovered the cluster first."""
        self.error = NotNewest("cluster_9 came first")
        with self.assertRaises(NotNewest):
            self.recover()
        self.assertEqual(self.where.load_plan(), self.plan)
        marker = self.where.data("member_1") / config.FIRST_START
        self.assertEqual(marker.read_text(), "found\n")

    def test_what_cannot_be(self) -> None:
        """A running cluster and a damaged file; nothing is claimed."""
        me = procfs.identify(os.getpid())
        assert me is not None
        state.write_supervisor(self.where, me)
        with self.assertRaisesRegex(ConfigError, "is running: stop it first"):
            self.recover()
        self.where.supervisor_file.unlink()
        self.file.write_bytes(self.file.read_bytes()[:-1])
        with self.assertRaisesRegex(ConfigError, "its checksum is wrong"):
            self.recover()
        self.assertEqual(self.claims, [])
