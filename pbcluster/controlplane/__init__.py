"""The control plane: what exists, who owns it, and who decides.

Pure cores: ``registry`` (all replicated state, changed only by ``commands`` in log order),
``placement`` (which node), ``liveness`` (which nodes live: soft state, never in the log),
``planner`` (what to do next). Shells: ``consensus`` is the seam behind which a command becomes
durable (``single`` with ``store`` on LMDB), ``executor`` carries decisions out, ``requests``
answers nodes and gateways, ``admin_api`` answers operators.

What must hold: epochs only grow, a tenant has one owner, names are unique, ids never come back, and
nothing is given away while its owner may still answer (section "Ownership" of
docs/architecture.rst).
"""
