"""A whole Raft group simulated from one seed, and a judge that sees everything.

``python -m pbcluster.testing.raft_sim --seeds 2000`` runs seeds; ``--mutants`` plants known bugs
and demands that each is caught. See :mod:`.world` for a run, :mod:`.properties` for what must hold,
:mod:`.schedule` for what goes wrong, :mod:`.mutants` for the bugs. A member is production's, in a
:mod:`.process`, on a :mod:`.disk` and a :mod:`.network` that are simulated.
"""
