"""The gateway: finds the tenant of a request and its node, and brings the one to the other.

Cores without I/O: ``tenant_id``, ``routes``, ``breaker`` and ``breakers``, ``retries``, ``holds``,
``fields``, ``pages``. Shells: ``lookups`` and ``updates`` (control plane), ``nodes`` (breakers,
probes, suspicion), ``passage`` and ``proxy`` (requests), ``metrics``, ``access_log`` and
``local_pages`` (what operators see), ``service`` and ``tap``.
"""
