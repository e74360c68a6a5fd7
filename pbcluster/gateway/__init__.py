"""The gateway: finds the tenant of a request and its node, and brings the one to the other.

Cores without I/O: ``tenant_id``, ``routes``, ``breaker`` and ``breakers``, ``retries``, ``holds``,
``fields``, ``pages``. Shells: ``lookups`` and ``updates`` (control plane), ``nodes`` (breakers,
probes, suspicion), ``passage`` and ``proxy`` (requests; ``breaker_words``: what an attempt says of
its node, ``request_end``: how one ends), ``metrics``, ``access_log`` and ``local_pages`` (what
operators see), ``assembly``, ``service`` and ``tap``; with several processes ``master``,
``worker_process`` and ``worker``.
"""
