"""Tests of what is shipped for testing."""
