"""The control plane: what exists, who owns it, and who decides.

Pure cores: ``registry`` (all replicated state, changed only by ``commands`` in log order; with
``registry_records``, tenants and nodes, ``tenant_changes`` and ``node_changes``, what commands do
to them, ``transitions``, which statuses follow which, ``tenant_order``, tenants as they are listed,
``roster``, the members, ``token_keys``, what signs platform tokens, ``api_tokens`` and ``audit``,
who may use the admin API and who did, ``outcomes``, what repeated commands came to, and
``registry_image``, its form in a snapshot), ``domains`` (which custom domains are allowed),
``placement`` (which node), ``liveness`` (which nodes live: soft state, never in the log),
``planner`` (what to do next). Of the admin API ``admin_table`` (operations), ``admin_bodies`` and
``admin_views`` (what comes in and goes out), ``admin_query`` (lists), ``openapi`` (the document).

Shells: ``consensus`` is the seam behind which a command becomes durable. Behind it ``raft_member``
applies and answers (``raft_proposals``, ``raft_reads``, ``raft_leader_waits``: who waits;
``raft_subscribers``: who is told; ``raft_registry``: what is applied), ``raft_driver`` does what
the Raft core wants (``raft_snapshots``: snapshots; ``raft_machine``: the seam between the two;
``raft_intervals`` and ``raft_leader_watch``: time), ``raft_store`` is the disk, ``raft_transport``
the network, ``beginning`` the first start, ``group`` puts them together, ``membership`` adds and
removes members. ``executor`` carries decisions out, ``requests`` answers nodes and gateways,
``tenant_reports`` what nodes say of their tenants, ``token_issuing`` makes tokens and keys,
``admin_api`` answers operators, through ``admin_guard``, passing on to the leader by
``admin_forward``. ``status_pages`` shows health and figures.

What must hold: epochs only grow, a tenant has one owner, names are unique, ids never come back, and
nothing is given away while its owner may still answer (section "Ownership" of
docs/architecture.rst).
"""
