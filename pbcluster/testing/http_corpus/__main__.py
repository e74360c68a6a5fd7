"""Prints the table of refused requests for the documentation."""

from pbcluster.testing.http_corpus import table

print(table(), end="")
