"""The moving average of the weights (Polyak & Juditsky 1992), and when it moves."""

POWER = 8
UPDATES = 1000  # of the average in a run, about; more would change nothing that can be measured


def average_share(step: int, steps: int) -> float | None:
    """How far the average moves to the weights after a step in 1, ..., `steps`: 1 is all the way; None, not at all.

    The average is that of Karras et al. 2024 (Analyzing and improving the training dynamics of diffusion models): with the
    decay (1 - 1 / t)^POWER at step t, the weights after step t count in proportion to about t^(POWER - 1). So it reaches back
    over a fixed share of a run of any length, and forgets where it began: with POWER 8, the last twelfth of the steps is half
    of the average. It moves every few steps, by the product of their decays, and at the last one.
    """
    every = -(-steps // UPDATES)
    if step % every and step != steps:
        return None
    before = (step - 1) // every * every
    return 1 - (before / step) ** POWER
