"""By which keys a node knows the requests of its gateways, as the control plane says. Pure.

A mapping: gateway id → HMAC key. It begins with what stands in the secrets (the gateways of the
first host). With each answer about the members come the ids of all gateways that are let in and of
those that were removed: keys of new ones are derived from the seed that all nodes share, those of
removed ones are gone, whatever stands in the secrets. Until the first answer the secrets alone say.

While a gateway's key is exchanged the secrets name further ones, which are as good (:attr:`also`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pbcluster import signing
from pbcluster.config import Secrets
from pbcluster.wire import Members


class GatewayKeys(Mapping[str, bytes]):
    """See the module.

    :ivar also: gateway id → further keys; the same object always, changed in place.
    """

    def __init__(self, own: Mapping[str, str], seed: str = "") -> None:
        """
        :param own: of the secrets. :param seed: of the secrets; empty: no other gateway is known.
        """
        self._own = {name: key.encode() for name, key in own.items()}
        self._own_also: dict[str, tuple[bytes, ...]] = {}
        self._seed = seed
        self._told: Members | None = None
        self._keys: dict[str, bytes] = {}
        self.also: dict[str, Sequence[bytes]] = {}
        self._combine()

    @classmethod
    def of(cls, secrets: Secrets) -> GatewayKeys:
        """Those of a node's secrets."""
        found = cls({}, secrets.gateway_seed)
        found.use(secrets)
        return found

    def use(self, secrets: Secrets) -> None:
        """The secrets were read (again)."""
        self._own = {name: key.encode() for name, key in secrets.gateway_keys.items()}
        self._own_also = {
            name: tuple(key.encode() for key in keys)
            for name, keys in secrets.gateway_keys_also.items()
        }
        self._combine()

    def heard(self, told: Members) -> None:
        """The control plane says who is let in."""
        self._told = told
        self._combine()

    def _combine(self) -> None:
        keys, also, told = dict(self._own), dict(self._own_also), self._told
        if told is not None:
            for name in told.gateways if self._seed else ():
                if name not in keys:
                    keys[name] = signing.derived_key(self._seed, name).encode()
            for name in told.former_gateways:
                keys.pop(name, None)
                also.pop(name, None)
        self._keys = keys
        self.also.clear()
        self.also.update(also)

    def get(self, gateway_id: str, default: Any = None) -> Any:
        """As any mapping's; every request asks."""
        return self._keys.get(gateway_id, default)

    def __getitem__(self, gateway_id: str) -> bytes:
        return self._keys[gateway_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)
