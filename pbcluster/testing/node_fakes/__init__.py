"""A node's outside without processes or network: S3, Litestream, PocketBase and the disk.

Everything runs on a ``task.Clock`` and answers at once unless a delay is set. Several nodes may
share one ``s3.FakeS3``, each through its own ``client`` with faults of its own, as through its own
network; ``claims`` is the real :class:`~pbcluster.node.claims.S3ClaimStore` on it.

    clock = task.Clock()
    s3 = FakeS3(clock)
    a, b = fake_node(clock, s3), fake_node(clock, s3)
    a.s3.faults.down = True                 # only this node is cut off
    a.s3.faults.lose_answers = 1            # the next write is done, its answer is lost
    a.workloads.fail_next("exit status 1")  # the next start fails
    a.workloads.running[tenant_id].write("row")
    s3.rows(tenant_id, epoch)               # what a restore would give

``node`` puts the others together: ``s3``, ``disk`` (what outlives processes), ``directories`` and
``warm_files`` on it, ``replication`` (Litestream) and ``workloads`` (PocketBase). What the real
ones refuse is refused here: two processes on one directory, a replica under an unknown path, a
restore over an existing file.
"""
