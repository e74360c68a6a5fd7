"""All planted bugs."""

from __future__ import annotations

from pbcluster.testing.raft_sim import mutants_around, mutants_core

MUTANTS = (*mutants_core.MUTANTS, *mutants_around.MUTANTS)
