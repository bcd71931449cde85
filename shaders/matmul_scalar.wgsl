// matmul.wgsl where K or N is not a multiple of four.
// The product and its grid are in scalar_matmul.wgsl. Declared in train/ops.py.
struct Params { T: u32, K: u32, N: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

fn weight_at(k: u32, n: u32) -> f32 { return weight[k * p.N + n]; }

fn finish(t: u32, n: u32, sum: f32) { out[t * p.N + n] = sum; }
