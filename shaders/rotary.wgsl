// Rotary positions: an element and the one half a head further on are a point in a plane, which is rotated by an angle.
// Cosines and sines come from a table: those that a GPU computes for large angles are not exact enough.
// Grid: a thread per WIDE elements of a row of q|k|v, x over columns and y over tokens. Declared in graph/ops/embedding.py.
struct Params { T: u32, N: u32, S: u32, D: u32, heads: u32 }
alias X = f32;
alias O = f32;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<X>>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<O>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let width = p.N / WIDE;
  if (id.x >= width) { return; }
  let at = id.y * width + id.x;
  let half = p.D / (2u * WIDE);
  var value = vec4<f32>(qkv[at]);
  if (id.x < p.heads * 2u * half) {
    let d = id.x % (2u * half);
    let angle = positions[id.y] * 2u * half + d % half;
    let cosine = table[angle];
    let sine = table[angle + half];
    if (d < half) {
      value = fma(value, cosine, -vec4<f32>(qkv[at + half]) * sine);
    } else {
      value = fma(value, cosine, vec4<f32>(qkv[at - half]) * sine);
    }
  }
  out[at] = vec4<O>(value);
}
