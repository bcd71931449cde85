"""Chooses where a graph is computed, and tests that device before it is trusted."""
