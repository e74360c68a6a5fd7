"""The settings that concern how requests are passed on: from the configuration to the proxy, at the
start and when they are read again."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from pbcluster.config import GatewayConfig, Secrets
from pbcluster.errors import ConfigError
from pbcluster.gateway.proxy import Proxy
from pbcluster.gateway.tenant_id import TenantFinder
from pbcluster.gateway.tokens import Tokens
from pbcluster.gateway.trusted import TrustedNetworks
from pbcluster.options import Parsed


def gateway_key(config: GatewayConfig, own: Secrets) -> bytes:
    """This gateway's signing key.

    :raises ConfigError: its secrets hold none.
    """
    key = own.gateway_keys.get(config.id, "")
    if not key:
        raise ConfigError(
            f"{config.secrets_file} has no key for {config.id!r} under gateway_keys: nodes would "
            "refuse every request"
        )
    return key.encode()


def tenant_finder(config: GatewayConfig, tokens: Tokens) -> TenantFinder:
    """Finds the tenants of requests as the settings say."""
    return TenantFinder(config.base_domains, tokens, TrustedNetworks(config.trusted_networks))


class ProxySettings:
    """Takes them over while the gateway runs; the signing key comes with them."""

    live = frozenset(("base_domains", "trusted_networks", "hold_s"))

    def __init__(self, gateway_id: str, proxy: Proxy, tokens: Tokens) -> None:
        self._id = gateway_id
        self._tokens = tokens
        self._proxy = proxy

    def prepare(self, parsed: Parsed[GatewayConfig]) -> Callable[[], None]:
        """As ``reloading.Reloadable``. :raises ConfigError: the secrets hold no key of ours."""
        config = attrs.evolve(parsed.config, id=self._id)
        key = gateway_key(config, parsed.secrets)
        return lambda: self._proxy.use(
            tenants=tenant_finder(config, self._tokens), hold_s=config.hold_s, key=key
        )
