"""Tests of the pure parts of ``benchmarks``: no figure is measured here."""
