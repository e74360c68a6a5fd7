"""The node: a stateless worker that runs one PocketBase process for each tenant it owns.

Pure cores decide (``ownership``: claims and proofs; ``durability``: when a write may be
acknowledged; ``lifecycle``: from absent to active and back; ``cache``: who must go); shells act
(``claims`` on S3, ``replication`` through Litestream, ``workload`` for PocketBase, ``front`` for
HTTP). Everything durable is in S3: a node may vanish at any moment. What must hold is section
"Ownership" of docs/architecture.rst: it answers for a tenant only under a proof, and acknowledges a
write only after it is in S3 and the ownership was seen unchanged afterwards.

Where to begin: ``service`` starts and ends what ``assembly`` makes. A request comes in by ``front``
and is ``tenant_request``'s from then on. ``tenants`` has all tenants of the node; each is a
``tenant``, with its ``tenant_process`` and its ``tenant_replication``.
"""
