"""Faults on a real cluster under clients, judged: ``python -m pbcluster.testing.chaos --list``.

``history`` (what was seen), ``judge`` and ``owners`` (what was promised), ``figures`` and
``picture`` are pure. ``clients`` and ``probes`` see it, ``stage`` is the cluster of a run, the
modules called ``stories_*`` are what happens to it, ``composed`` draws stories from a seed,
``running`` plays them, ``report`` and ``command`` tell.
"""
