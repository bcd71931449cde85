"""Fit GELU_ERF of graph/ops/activations.py: P with x Phi(x) = 0.5 x (1 + tanh(x P(x^2))), that is P(x^2) = logit(Phi(x)) / 2x.

Least squares in powers of x^2 on |x| <= 5.6, reweighted towards the largest error of x Phi(x) (Lawson 1961), in float64.
WGSL has no erf and numpy none that is vectorised; this form costs six multiply-adds and one tanh or exp.

    python benchmarks/fit_gelu.py        (needs numpy only; some seconds)
"""

import math

import numpy as np

TERMS = 7
x = np.linspace(1e-3, 5.6, 6001)
upper = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in x])  # Phi(-x)
phi = 1 - upper
target = (np.log1p(-upper) - np.log(upper)) / (2 * x)
powers = np.vander(x * x, TERMS, increasing=True)
slope = 2 * phi * upper * x * x  # what an error of P does to x Phi(x)

weights = np.ones_like(x)
best = (math.inf, np.zeros(TERMS))
for _ in range(400):
    row = slope * weights
    coefficients = np.linalg.lstsq(powers * row[:, None], target * row, rcond=None)[0]
    error = np.abs(0.5 * x * (1 + np.tanh(x * (powers @ coefficients))) - x * phi)
    best = min(best, (float(error.max()), coefficients), key=lambda b: b[0])
    weights *= (error / error.max() + 1e-3) ** 0.3
    weights /= weights.max()

print("largest error of x Phi(x), exact arithmetic:", f"{best[0]:.2e}")
print(
    "P:",
    ", ".join(f"{c:.9g}" for c in best[1]),
    " its double, for 1 / (1 + exp(-2u)):",
    ", ".join(f"{2 * c:.9g}" for c in best[1]),
)
