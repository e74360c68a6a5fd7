"""Ports for what a test, or a measurement, starts: free now, and still free when it is started.

They lie below the range from which the kernel takes ports for outgoing connections: one of that
range that is free now may be somebody's connection a moment later, and then the server that was to
listen there ends with "address already in use". What asks for port 0 itself needs none of this.
"""

from __future__ import annotations

from pbcluster.cli.ports import Picker


def free_ports(count: int) -> list[int]:
    """So many ports of 127.0.0.1 that nobody has now, none twice, none the kernel's to give.

    :raises Unavailable: there are not so many.
    """
    picker = Picker(0, 0, None)
    return [picker.take("test") for _ in range(count)]
