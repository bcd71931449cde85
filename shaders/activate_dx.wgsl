// dout times the derivative of the activation at x, where its value is y.
// An activation of the form y = x s(x) has s = y / x (0.5 where both are 0) and the derivative s + x s'.
// Grid: a thread per WIDE elements of a row, 64 columns apart, x over columns and y over tokens. Declared in train/ops.py.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> y: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;

fn derivative(x: f32, y: f32) -> f32 {
  if (ACTIVATION == RELU) { return select(0.0, 1.0, y > 0.0); }
  if (ACTIVATION == TANH) { return fma(-y, y, 1.0); }
  if (ACTIVATION == SIGMOID) { return y * (1.0 - y); }
  if (ACTIVATION == RELU6) { return select(0.0, 1.0, y > 0.0 && y < 6.0); }
  if (ACTIVATION == LEAKY_RELU) { return select(0.01, 1.0, y > 0.0); }
  if (ACTIVATION == ELU) { return min(y, 0.0) + 1.0; }
  let s = (y + 0.5e-30) / (x + 1e-30); // 0.5 where x and y are 0
  if (ACTIVATION == GELU_ERF) { return fma(x, 0.3989422804014327 * exp(-0.5 * x * x), s); } // 1 / sqrt(2 pi)
  // s' = s (1 - s) 2u', where 2u' = 2 (a + 3 b x^2) with a and b of GELU_TANH
  if (ACTIVATION == GELU_TANH) { return fma(x, s * (1.0 - s) * fma(x * x, 0.21406444881780074, 1.5957691216057308), s); }
  return fma(x, s * (1.0 - s), s); // SILU
}

const WIDE: u32 = 4u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.y * p.C;
  let first = group.x * 64u * WIDE + lane;
  var v: array<f32, WIDE>; // all are loaded before the first is stored
  for (var i = 0u; i < WIDE; i++) {
    let at = row + min(first + i * 64u, p.C - 1u);
    v[i] = dout[at] * derivative(x[at], y[at]);
  }
  for (var i = 0u; i < WIDE; i++) {
    let c = first + i * 64u;
    if (c < p.C) { dx[row + c] = v[i]; }
  }
}
