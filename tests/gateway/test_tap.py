"""``twistd pbgateway`` as a process, without a control plane."""

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.protocol import Factory
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase, TestCase

import pbcluster
from pbcluster.gateway.tap import Options

reactor: Any = _reactor
SETTINGS = """
id = "gateway_1"
cluster_id = "test"
data_dir = "data"
secrets_file = "secrets.toml"
peers_file = "peers.toml"
members = ["tcp://127.0.0.1:1"]
broadcasts = ["tcp://127.0.0.1:2"]
insecure_plain_sockets = true
"""


def write_files(directory: Path, secrets: str = 'gateway_keys = {gateway_1 = "k"}\n') -> Path:
    directory = directory.absolute()
    directory.mkdir()
    (directory / "peers.toml").write_text('[peers.gateway_1]\nrole = "gateway"\n')
    (directory / "secrets.toml").write_text(secrets)
    (directory / "secrets.toml").chmod(0o600)
    (directory / "gateway.toml").write_text(SETTINGS)
    return directory / "gateway.toml"


class OptionsTests(SynchronousTestCase):
    def test_flags_over_file(self) -> None:
        """A flag wins over the file; what both leave out has its default."""
        options = Options()
        file = write_files(Path(self.mktemp()))
        options.parseOptions([f"--config={file}", "--hold-s=5"])
        self.assertEqual(options.parsed.config.hold_s, 5.0)
        self.assertEqual(options.parsed.config.listen, ("127.0.0.1", 8080))

    def test_wrong_value(self) -> None:
        """A wrong value is named with its option and what is allowed."""
        file = write_files(Path(self.mktemp()))
        error = self.assertRaises(
            usage.UsageError, Options().parseOptions, [f"--config={file}", "--hold-s=400"]
        )
        for word in ("--hold-s", "400", "0 to 300"):
            self.assertIn(word, str(error))


class ProcessTests(TestCase):
    timeout = 60

    async def run_gateway(self, file: Path, *flags: str) -> tuple[str, str, int]:
        root = str(Path(pbcluster.__file__).parent.parent)
        twistd = ("-m", "pbcluster.twistd", "--nodaemon", "--pidfile=", "--reactor=pbuvloop")
        out, err, code = await getProcessOutputAndValue(
            sys.executable,
            (*twistd, "pbgateway", f"--config={file}", *flags),
            env={**os.environ, "PYTHONPATH": root},
            path=str(file.parent),
        )
        return out.decode(), err.decode(), code

    async def test_port_in_use(self) -> None:
        """A port in use ends the process: one sentence names port and option, status 1."""
        taken = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(taken.stopListening)
        port = taken.getHost().port
        for option in ("listen", "metrics-listen"):
            flags = ("--listen=127.0.0.1:0", f"--{option}=127.0.0.1:{port}")
            out, err, code = await self.run_gateway(write_files(Path(self.mktemp())), *flags)
            self.assertEqual(
                err,
                f"pbgateway: cannot listen at 127.0.0.1:{port} (--{option}): "
                "Address already in use\n",
            )
            self.assertEqual(code, 1)
            self.assertNotIn("Traceback", out)

    async def test_no_key(self) -> None:
        """Without its key for nodes the gateway does not start, and says where it belongs."""
        _, err, code = await self.run_gateway(write_files(Path(self.mktemp()), ""))
        self.assertEqual(code, 1)
        self.assertIn("has no key for 'gateway_1' under gateway_keys", err)
        self.assertNotIn("Traceback", err)
