"""``python -m pbcluster.twistd``: Twisted's ``twistd`` by this very interpreter.

The console script ``twistd`` ignores a checkout and need not be on the PATH; this works from a
checkout and from a wheel alike.
"""

from twisted.scripts.twistd import run

if __name__ == "__main__":
    run()
