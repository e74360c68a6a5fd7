"""Messages between processes: requests, pushes and broadcasts over txZMQ sockets.

``interfaces`` says what the rest of the platform may ask of a transport; the modules beside it do
it with ZeroMQ, ``pbcluster.testing.memory_transport`` without sockets. What must hold: a frame is
checked (size, magic, cluster, sender) before anything acts on it; every request ends by its
deadline; every queue is bounded, and what does not fit is dropped and counted, never kept. A
transport neither knows nor cares what a tenant is.
"""
