"""The control plane's Raft group beside etcd and PySyncObj; ``python -m benchmarks.raft``.

Each system is three real processes on the loopback with its data on the same disk, and is asked by
the same closed loops (``loops``) from a client process of its own (``our_client``, ``etcd_client``;
PySyncObj knows no client: there the loops run within its leader). While one system is measured, the
processes of the others are frozen; rounds take turns. What an operation is:

* ours, write: ``RegisterNode`` of a start that is known already: one log entry of about 350 bytes,
  replicated, fsynced and applied, its outcome kept under its idempotency key (20,000 are): CURVE on
  every socket, the sender checked. Etcd's put: 300 bytes under one of 1,000 keys, no TLS, no auth;
  it keeps every version in its database.
* ours, read: ``Lease``: a ReadIndex, then a decision about the lease. Etcd: a linearizable Range.
* ours, look-up: ``LookupRoute`` at one member. Etcd: a serializable Range.
"""
