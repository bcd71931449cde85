// x @ weight
// The product and its grid are in matmul_*.wgsl, which load weights with `columns` and call `finish` for every four columns.
// Declared in train/ops.py.
struct Params { T: u32, K: u32, N: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;

alias Row4 = vec4<f32>;
alias Columns4 = vec4<f32>;
fn load_columns(k: u32, n4: u32) -> Columns4 { return weight[k * (p.N / 4u) + n4]; }
fn widen(columns: Columns4) -> vec4<f32> { return columns; }
fn columns(k: u32, n4: u32) -> vec4<f32> { return load_columns(k, n4); }

fn finish(t: u32, n4: u32, sum: vec4<f32>) {
  if (t < p.T && n4 < p.N / 4u) { out[t * (p.N / 4u) + n4] = sum; }
}
