"""PocketBase's dashboard, as a browser shows it through the gateway."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from unittest import SkipTest

from pbcluster.cli.commands_inside import sign_in
from pbcluster.testing.cluster import RealCluster
from tests.integration.support import EMAIL, PASSWORD
from tests.integration.test_crossing import CrossingTestCase

#: Without these Chromium looks for its maker's servers at every start.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=15000",
)


MOVE_ON = "location.href = '/_/'"


class DashboardTests(CrossingTestCase):
    def dom(self, url: str) -> str:
        """The page's elements once its scripts have run."""
        browser = shutil.which("chromium")
        if browser is None:
            raise SkipTest("needs a browser: Debian package chromium")
        profile = tempfile.mkdtemp(prefix="chromium-")
        self.addCleanup(shutil.rmtree, profile, ignore_errors=True)
        shown = subprocess.run(
            [browser, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", url],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return shown.stdout

    def page(self, cluster: RealCluster, host: str, path: str) -> str:
        port = cluster.gateway_url.rpartition(":")[2]
        return self.dom(f"http://{host}:{port}{path}")

    def test_the_dashboard_shows_its_login(self) -> None:
        """The dashboard's scripts and styles load through the gateway: the login form appears.
        A host that is nobody's shows a page that a person can read. An operator's token opens the
        dashboard as its superuser."""
        cluster = self.cluster(nodes=1)
        cluster.create_tenant("shop", EMAIL, PASSWORD)
        login = self.page(cluster, cluster.host("shop"), "/_/")
        self.assertIn("Superuser login", login, cluster.logs())
        self.assertIn('type="password"', login)
        nobody = self.page(cluster, cluster.host("nobody"), "/")
        self.assertIn("There is nothing here", nobody)
        self.check_an_operators_login(cluster)

    def check_an_operators_login(self, cluster: RealCluster) -> None:
        """The line that `tenants login` shows for the browser's console signs in."""
        found = cluster.admin.login("shop", "", 300)
        page = f"<script>{sign_in(found).replace('location.reload()', MOVE_ON)}</script>"
        tenant = cluster.admin.tenant("shop")["id"]
        public = cluster.where.data("node_1") / "tenants" / tenant / "public"
        (public / "operator.html").write_text(page)
        shown = self.page(cluster, cluster.host("shop"), "/operator.html")
        self.assertNotIn("Superuser login", shown)
        self.assertIn(EMAIL, shown, shown[:3000])
