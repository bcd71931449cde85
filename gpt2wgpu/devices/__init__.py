"""Where a graph is computed, and whether that device can be trusted."""
