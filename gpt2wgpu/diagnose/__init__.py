"""Looks at a model and a device: checks against numpy, a kernel of the reader, profiles, token counts."""
