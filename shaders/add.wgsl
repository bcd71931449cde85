// a + b, element by element: where two branches of a graph meet.
// Grid: a thread per WIDE elements of a row, 64 columns apart, x over columns and y over tokens. Declared in train/ops.py.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

const WIDE: u32 = 4u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.y * p.C;
  let first = group.x * 64u * WIDE + lane;
  var v: array<f32, WIDE>; // all are loaded before the first is stored
  for (var i = 0u; i < WIDE; i++) {
    let at = row + min(first + i * 64u, p.C - 1u);
    v[i] = a[at] + b[at];
  }
  for (var i = 0u; i < WIDE; i++) {
    let c = first + i * 64u;
    if (c < p.C) { out[row + c] = v[i]; }
  }
}
