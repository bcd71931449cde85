"""What a model and a device do: self-checks, profiles, token counts."""
