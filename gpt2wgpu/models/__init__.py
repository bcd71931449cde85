"""One file per architecture: its configuration, its graph, its weight names."""
