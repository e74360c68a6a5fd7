"""Custom domains as operators give them: checked once, here. Pure.

A custom domain is a whole host name, in lower case, international names as A-labels. None is an
address, and none is the base domain or below it: there names of tenants decide. That no two tenants
have the same is the registry's to see to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pbcluster.errors import InvalidInput, Unprocessable
from pbcluster.records import MAX_DOMAINS, check_domain

FIELD = "customDomains"


def custom_domains(value: Any, base_domain: str) -> tuple[str, ...]:
    """All custom domains of one tenant, in the order given, each once.

    :param value: decoded JSON.
    :raises InvalidInput: names what is wrong and what is allowed.
    """
    rule = f"at most {MAX_DOMAINS} host names"
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > MAX_DOMAINS:
        raise InvalidInput(f"{FIELD} must be a list of {rule}", field=FIELD, allowed=rule)
    return tuple(dict.fromkeys(_custom_domain(each, base_domain) for each in value))


def _custom_domain(value: Any, base_domain: str) -> str:
    domain = check_domain(value.lower() if isinstance(value, str) else value, FIELD)
    if domain == base_domain or domain.endswith(f".{base_domain}"):
        rule = f"a host name outside {base_domain}, where tenants answer by their names"
        raise Unprocessable(f"{FIELD} {domain!r} is not allowed: {rule}", field=FIELD, allowed=rule)
    return domain
