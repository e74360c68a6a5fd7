"""``python -m pbcluster.testing.chaos``."""

from pbcluster.testing.chaos.command import main

if __name__ == "__main__":
    main(prog_name="python -m pbcluster.testing.chaos")
