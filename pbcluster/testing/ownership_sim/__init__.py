"""The ownership simulator: control plane, nodes, S3, disks and clients in one process, one seed.

What runs is production code: on the nodes ``tenants`` and ``tenant`` with all their cores,
``heartbeat`` and ``reports``; in the control plane registry, liveness, planner, executor and
``requests``. Simulated are time, the ways between them, S3, Litestream, PocketBase and the disks.
``python -m pbcluster.testing.ownership_sim --help`` runs it; ``world`` has the whole picture.
"""
