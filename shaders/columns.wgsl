// M columns of x, from column `first` on.
// Grid: a thread per element, x over columns and y over tokens. Declared in train/ops.py.
struct Params { T: u32, N: u32, M: u32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < p.M) { out[id.y * p.M + id.x] = x[id.y * p.N + p.first + id.x]; }
}
