"""The gateway beside nginx, HAProxy and Caddy; ``python -m benchmarks.gateway``.

All systems of a measure run at the same time and take turns under load, round after round, so that
a machine's moods meet all of them. Proxies are pinned to one core, everything else (the load
generator, the upstream, the control plane) to another. The figure that counts is the processor
time of the proxy's own processes, user and system, divided by the requests that they served: it is
little moved by what else the machine does. Requests a second and latencies are told too, but any
other process on the machine moves them.

Ratios are made within a round, ours to the other's, and told as minimum, median and maximum of the
rounds.

Modules: ``figures`` (pure: parsing, ratios, targets) and ``report`` (pure: tables, charts);
``processes`` (start, pin, weigh, end), ``wrk``, ``peers`` (the other proxies and their settings),
``ours`` and ``ours_host`` (this project's processes, of any checkout); one module a measure.
"""
