// a + b, element by element: where two branches of a graph meet.
// Grid: a thread per element, x over columns and y over tokens. Declared in train/ops.py.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.C) { return; }
  let at = id.y * p.C + id.x;
  out[at] = a[at] + b[at];
}
