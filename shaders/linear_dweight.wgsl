// x transposed @ dout. The matmul itself is in matmul_gradient.wgsl: m is the layer's input, n its output, k the token.
struct Params { T: u32, K: u32, N: u32, onto: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dout: array<f32>;
@group(0) @binding(3) var<storage, read_write> dweight: array<f32>;
const K_ADJACENT: bool = false;

fn inner() -> u32 { return p.T; }

fn left(m: u32, k: u32) -> f32 {
  if (m < p.K && k < p.T) { return x[k * p.K + m]; }
  return 0.0;
}

fn right(k: u32, n: u32) -> f32 {
  if (k < p.T && n < p.N) { return dout[k * p.N + n]; }
  return 0.0;
}

fn store(m: u32, n: u32, sum: f32) {
  if (m < p.K && n < p.N) {
    let at = m * p.N + n;
    if (p.onto == 1u) { dweight[at] += sum; } else { dweight[at] = sum; }
  }
}
