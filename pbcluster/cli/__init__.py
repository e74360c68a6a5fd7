"""The command ``pbcluster``: makes, starts, watches and asks a cluster on this machine.

``layout`` (files of a cluster directory) → ``initialise`` (writes them) → ``spec`` (how each
process is started) → ``child`` (one running process) → ``supervisor`` (all of them) →
``commands_*`` (click) → ``main``. No reactor runs here; the services do the work.
"""
