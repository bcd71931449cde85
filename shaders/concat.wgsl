// a|b: each row of `a`, followed by the same row of `b`.
// Grid: a thread per element, x over columns and y over sequences. Declared in graph/ops/pooling.py.
struct Params { B: u32, J: u32, K: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  let width = p.J + p.K;
  if (c >= width) { return; }
  if (c < p.J) { out[id.y * width + c] = a[id.y * p.J + c]; } else { out[id.y * width + c] = b[id.y * p.K + c - p.J]; }
}
