// dout @ weight transposed. The matmul itself is in matmul_gradient.wgsl: m is the token, n the layer's input, k its output.
struct Params { T: u32, N: u32, K: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;
const K_ADJACENT: bool = true;

fn inner() -> u32 { return p.N; }

fn left(m: u32, k: u32) -> f32 {
  if (m < p.T && k < p.N) { return dout[m * p.N + k]; }
  return 0.0;
}

fn right(k: u32, n: u32) -> f32 {
  if (k < p.N && n < p.K) { return weight[n * p.N + k]; }
  return 0.0;
}

fn store(m: u32, n: u32, sum: f32) {
  if (m < p.T && n < p.K) { dx[m * p.K + n] = sum; }
}
