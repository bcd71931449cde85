// activation(x @ weight + bias) with weights in int8.
// A u32 holds four neighbouring columns; each GROUP of k in a column has a scale.
// The product and its grid are in matmul_*.wgsl, which load weights with `columns` and call `finish` for every four columns.
// Declared in graph/ops/linear_layers.py.
struct Params { T: u32, K: u32, N: u32, J: u32 }
alias X = f32;
alias O = f32;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<X>>;
@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scale: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<O>>;

const GROUP: u32 = 64u;

alias Row4 = vec4<X>;
struct Columns4 { q: u32, scale: vec4<f32> }
fn load_columns(k: u32, n4: u32) -> Columns4 {
  return Columns4(weight[k * (p.N / 4u) + n4], scale[k / GROUP * (p.N / 4u) + n4]);
}
fn widen(columns: Columns4) -> vec4<f32> { return vec4<f32>(unpack4xI8(columns.q)) * columns.scale; }
fn columns(k: u32, n4: u32) -> vec4<f32> { return widen(load_columns(k, n4)); }

fn finish(t: u32, n4: u32, sum: vec4<f32>) {
  if (t < p.T && n4 < p.N / 4u) {
    let v = sum + bias[n4];
    out[t * (p.N / 4u) + n4] = vec4<O>(vec4(activate(v.x), activate(v.y), activate(v.z), activate(v.w)));
  }
}
