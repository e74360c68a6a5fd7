"""Which addresses tenants may reach."""

from __future__ import annotations

import ipaddress

from twisted.trial.unittest import SynchronousTestCase

from pbcluster.node.egress.addresses import is_public

REFUSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.1.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "168.63.129.16",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "100::1",
    "2001::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "3fff::1",
    "5f00::1",
]
ALLOWED = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "192.167.255.255",
    "192.169.0.1",
    "198.17.255.255",
    "198.20.0.1",
    "223.255.255.255",
    "2606:4700::1111",
    "2a00:1450:4001::200e",
    "2001:4860:4860::8888",
]


class Addresses(SynchronousTestCase):
    def test_special_ranges(self) -> None:
        """Private, loopback, link-local, metadata, multicast and every address that carries another
        are refused; their neighbours in the public space are not."""
        self.assertEqual([each for each in REFUSED if is_public(each)], [])
        self.assertEqual([each for each in ALLOWED if not is_public(each)], [])

    def test_no_address(self) -> None:
        """What is no plain numeric address is refused, octal and short forms included."""
        words = ("", "localhost", "0177.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]")
        self.assertEqual([each for each in words if is_public(each)], [])

    def test_ranges_of_the_operator(self) -> None:
        """Further ranges are refused, in their own family only."""
        ranges = [ipaddress.ip_network("8.8.0.0/16"), ipaddress.ip_network("2606::/16")]
        self.assertFalse(is_public("8.8.4.4", ranges))
        self.assertFalse(is_public("2606:4700::1111", ranges))
        self.assertTrue(is_public("1.1.1.1", ranges))
