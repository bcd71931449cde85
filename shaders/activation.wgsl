// The activations; ACTIVATION is set when the source is specialised. The formulas are those of ACTIVATIONS in
// graph/ops/activations.py, with 0.5 (1 + tanh(u)) written as 1 / (1 + exp(-2u)): no overflow, and small results stay exact.
// Used by activate, activate_dx, glu, linear, linear_int8.
const NONE: u32 = 0u;
const GELU_TANH: u32 = 1u;
const GELU_ERF: u32 = 2u;
const RELU: u32 = 3u;
const SILU: u32 = 4u;
const TANH: u32 = 5u;
const SIGMOID: u32 = 6u;
const RELU6: u32 = 7u;
const LEAKY_RELU: u32 = 8u;
const ELU: u32 = 9u;
const ACTIVATION: u32 = NONE;

// The coefficients are twice those in activations.py, as exp takes 2u. Clamping keeps exp finite: exp(88.8) is not in f32.
fn activate(x: f32) -> f32 {
  if (ACTIVATION == GELU_TANH) {
    let c = clamp(x, -10.0, 10.0);
    return x / (1.0 + exp(-c * fma(c * c, 0.07135481627159861, 1.5957691216057308)));
  }
  if (ACTIVATION == GELU_ERF) {
    let c = clamp(x, -5.6, 5.6); // the range of the fit
    let s = c * c;
    var q = 3.62785249e-09;
    q = fma(q, s, -2.67566308e-07);
    q = fma(q, s, 7.94814008e-06);
    q = fma(q, s, -1.10546763e-04);
    q = fma(q, s, -6.60534367e-05);
    q = fma(q, s, 0.0726682983);
    q = fma(q, s, 1.5957685);
    return x / (1.0 + exp(-c * q));
  }
  if (ACTIVATION == SILU) { return x / (1.0 + exp(-max(x, -87.0))); }
  if (is_nan(x)) { return x; }
  if (ACTIVATION == RELU) { return max(x, 0.0); }
  if (ACTIVATION == TANH) { return tanh(clamp(x, -10.0, 10.0)); } // some drivers give NaN for large numbers
  if (ACTIVATION == SIGMOID) { return 1.0 / (1.0 + exp(-max(x, -87.0))); }
  if (ACTIVATION == RELU6) { return clamp(x, 0.0, 6.0); }
  if (ACTIVATION == LEAKY_RELU) { return max(x, 0.01 * x); }
  if (ACTIVATION == ELU) { return max(x, 0.0) + (exp(clamp(x, -87.0, 0.0)) - 1.0); }
  return x;
}
