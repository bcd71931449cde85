// The transpose of a matrix. Neighbouring threads write neighbouring elements.
// Grid: a thread per element, x over the columns of the result and y over its rows. Declared in train/ops.py.
struct Params { K: u32, N: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < p.K) { out[id.y * p.K + id.x] = x[id.x * p.N + id.y]; }
}
