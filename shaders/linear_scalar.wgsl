// linear.wgsl where K or N is not a multiple of four.
// The product and its grid are in scalar_matmul.wgsl. Declared in graph/ops/linear_layers.py.
struct Params { T: u32, K: u32, N: u32 }
alias X = f32;
alias W = f32;
alias O = f32;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read> weight: array<W>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<O>;

fn weight_at(k: u32, n: u32) -> f32 { return f32(weight[k * p.N + n]); }

fn finish(t: u32, n: u32, sum: f32) { out[t * p.N + n] = O(activate(sum + bias[n])); }
