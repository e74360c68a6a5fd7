"""``python -m pbcluster.twistd``: Twisted's ``twistd`` by this very interpreter.

The console script ``twistd`` ignores a checkout and need not be on the PATH; this works from a
checkout and from a wheel alike. A service that could not go on ends it with status 1.
"""

import sys

from twisted.scripts.twistd import run

if __name__ == "__main__":
    run()
    # Late: importing it installs one, and only the options know which it shall be.
    from twisted.internet import reactor

    from pbcluster.ending import exit_status

    sys.exit(exit_status(reactor))
