// residual + (x @ weight + bias)
// The product and its grid are in matmul_*.wgsl, which load weights with `columns` and call `finish` for every four columns.
// Declared in graph/ops/linear_layers.py.
struct Params { T: u32, K: u32, N: u32 }
alias X = f32;
alias W = f32;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<X>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<W>>;
@group(0) @binding(3) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

alias Row4 = vec4<X>;
alias Columns4 = vec4<W>;
fn load_columns(k: u32, n4: u32) -> Columns4 { return weight[k * (p.N / 4u) + n4]; }
fn widen(columns: Columns4) -> vec4<f32> { return vec4<f32>(columns); }
fn columns(k: u32, n4: u32) -> vec4<f32> { return widen(load_columns(k, n4)); }

fn finish(t: u32, n4: u32, sum: vec4<f32>) {
  if (t < p.T && n4 < p.N / 4u) {
    let at = t * (p.N / 4u) + n4;
    out[at] = residual[at] + (sum + bias[n4]);
  }
}
