// x transposed @ dout, part by part of the tokens: the gradient of a linear layer's matrix, which sum_parts.wgsl adds up.
// The product and its grid are in dweight_*.wgsl, in which t ascends, and which call `finish` for every four columns.
// Declared in train/sums.py.
struct Params { T: u32, K: u32, N: u32, P: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> parts: array<vec4<f32>>;

fn finish(part: u32, k: u32, n4: u32, sum: vec4<f32>) {
  if (k < p.K && n4 < p.N / 4u) { parts[(part * p.K + k) * (p.N / 4u) + n4] = sum; }
}
