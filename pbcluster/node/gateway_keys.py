"""By which keys a node knows the requests of its gateways, as the control plane says. Pure.

They begin with what stands in the secrets (the gateways of the first host). With each answer about
the members come the ids of all gateways that are let in and of those that were removed: keys of new
ones are derived from the seed that all nodes share, those of removed ones are gone, whatever stands
in the secrets. Until the first answer the secrets alone say.

While a gateway's key is exchanged the secrets name further ones, which are as good (:attr:`also`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pbcluster import signing
from pbcluster.config import Secrets
from pbcluster.wire import Members


class GatewayKeys:
    """See the module.

    :ivar keys: gateway id → signing key. :ivar also: gateway id → further keys. Both are the same
        objects always, changed in place.
    """

    def __init__(self, own: Mapping[str, str], seed: str = "") -> None:
        """
        :param own: of the secrets. :param seed: of the secrets; empty: no other gateway is known.
        """
        self._own = {name: key.encode() for name, key in own.items()}
        self._own_also: dict[str, tuple[bytes, ...]] = {}
        self._seed = seed
        self._told: Members | None = None
        self.keys: dict[str, bytes] = {}
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
        self.keys.clear()
        self.keys.update(keys)
        self.also.clear()
        self.also.update(also)
