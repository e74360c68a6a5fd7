"""Ports: public ones exactly as asked, internal ones free, none twice."""

import socket

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.cli import initialise, ports
from pbcluster.cli.initialise import Wish
from pbcluster.cli.layout import Plan
from pbcluster.errors import ConfigError


def listener(test: SynchronousTestCase) -> int:
    found = socket.socket()
    test.addCleanup(found.close)
    found.bind(("127.0.0.1", 0))
    found.listen()
    return int(found.getsockname()[1])


def all_ports(plan: Plan) -> list[int]:
    return [port for process in plan.processes for port in process.ports.values()]


class PortTests(SynchronousTestCase):
    def test_public_ports_are_exact(self) -> None:
        """The gateway's and the admin API's port are what was asked, in use or not."""
        taken = listener(self)
        plan = initialise.new_plan(Wish(gateway_port=taken, admin_port=29999))
        self.assertEqual((plan.gateway_port, plan.admin_port), (taken, 29999))

    def test_none_twice(self) -> None:
        """No port is handed out twice, whatever the public ports are."""
        for wish in (
            Wish(gateway_port=0, admin_port=0, nodes=5),
            Wish(gateway_port=5555, admin_port=5557, nodes=5),
            Wish(nodes=8),
            Wish(nodes=5, internal_port=20000),
        ):
            found = all_ports(initialise.new_plan(wish))
            self.assertEqual(len(found), len(set(found)))

    def test_any_free_port_is_nobodys_outgoing(self) -> None:
        """A port that is chosen freely is none that the kernel gives to outgoing connections: it is
        still free when the cluster starts again."""
        plan = initialise.new_plan(Wish(gateway_port=0, admin_port=0, nodes=5))
        with socket.socket() as outgoing:
            outgoing.bind(("127.0.0.1", 0))
            self.assertGreaterEqual(outgoing.getsockname()[1], ports.first_outgoing())
        self.assertLess(max(all_ports(plan)), ports.first_outgoing())
        self.assertGreaterEqual(min(all_ports(plan)), 1024)

    def test_two_clusters_that_never_ran(self) -> None:
        """Clusters with other public ports do not share an internal one, even if none runs yet."""
        first = initialise.new_plan(Wish())
        second = initialise.new_plan(Wish(gateway_port=9180, admin_port=9195))
        self.assertEqual(set(all_ports(first)) & set(all_ports(second)), set())

    def test_internal_range(self) -> None:
        """--internal-port begins the row; ports in use are left out."""
        taken = listener(self)
        plan = initialise.new_plan(Wish(internal_port=taken))
        internal = [p for p in all_ports(plan) if p not in (plan.gateway_port, plan.admin_port)]
        self.assertGreater(min(internal), taken)
        self.assertLess(max(internal), taken + 1000)

    def test_in_use_is_one_sentence(self) -> None:
        """A port in use is named with its process and the option that changes it."""
        cases = {
            "--gateway-port": Wish(gateway_port=listener(self), admin_port=0),
            "--admin-port": Wish(gateway_port=0, admin_port=listener(self)),
        }
        for option, wish in cases.items():
            plan = initialise.new_plan(wish)
            port = wish.gateway_port or wish.admin_port
            with self.assertRaisesRegex(ConfigError, f"^port {port} .*in use.*{option}$"):
                ports.check_free(plan)
        ports.check_free(initialise.new_plan(Wish(gateway_port=0, admin_port=0)))
