"""Fakes, simulators and a real-process cluster: shipped, so that users can test too.

Nothing of the services imports this package.
"""
