"""By which keys a node knows the requests of its gateways, as the control plane says. Pure.

A mapping: gateway id → HMAC key. It begins with what stands in the secrets (the gateways of the
first host). With each answer about the members come the ids of all gateways that are let in and of
those that were removed: keys of new ones are derived from the seed that all nodes share, those of
removed ones are gone, whatever stands in the secrets. Until the first answer the secrets alone say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pbcluster import signing
from pbcluster.wire import Members


class GatewayKeys(Mapping[str, bytes]):
    """See the module."""

    def __init__(self, own: Mapping[str, str], seed: str = "") -> None:
        """
        :param own: of the secrets. :param seed: of the secrets; empty: no other gateway is known.
        """
        self._own = {name: key.encode() for name, key in own.items()}
        self._seed = seed
        self._keys: dict[str, bytes] = dict(self._own)

    def heard(self, told: Members) -> None:
        """The control plane says who is let in."""
        keys = dict(self._own)
        for name in told.gateways if self._seed else ():
            if name not in keys:
                keys[name] = signing.derived_key(self._seed, name).encode()
        for name in told.former_gateways:
            keys.pop(name, None)
        self._keys = keys

    def __getitem__(self, gateway_id: str) -> bytes:
        return self._keys[gateway_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
