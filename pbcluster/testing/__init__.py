"""Fakes, simulators and a real-process cluster: shipped, so that users can test too.

``node_fakes`` is a node's outside, ``http_memory`` the HTTP core's, both in memory;
``ownership_sim`` and ``raft_sim`` are the simulators, ``cluster`` has real processes. Nothing of
the services imports this package.
"""
