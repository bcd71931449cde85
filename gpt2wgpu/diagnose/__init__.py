"""Looks at a model and a device: checks against numpy, profiles, token counts."""
