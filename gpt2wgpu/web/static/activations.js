// The activations of linear layers, as in gpt2wgpu/graph/ops/activations.py.

// Three are x / (1 + exp(-2x P(x^2))): the coefficients of P, lowest first
export const GATES = {
  gelu_tanh: [0.7978845608028654, 0.035677408136300125],
  gelu_erf: [0.79788425, 0.0363341492, -3.30267184e-5, -5.52733815e-5, 3.97407004e-6, -1.33783154e-7, 1.81392624e-9],
  silu: [0.5],
};

const gate = (coefficients) => (x) => {
  const p = coefficients.reduceRight((sum, c) => sum * x * x + c, 0);
  return x / (1 + Math.exp(-2 * x * p));
};

export const ACTIVATIONS = {
  none: (x) => x,
  ...Object.fromEntries(Object.entries(GATES).map(([name, coefficients]) => [name, gate(coefficients)])),
  relu: (x) => Math.max(x, 0),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  relu6: (x) => Math.min(Math.max(x, 0), 6),
  leaky_relu: (x) => Math.max(x, 0.01 * x),
  elu: (x) => (x > 0 ? x : Math.expm1(x)),
};
