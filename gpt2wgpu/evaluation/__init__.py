"""Scores of a model: how well its similarities agree with people's judgements."""
