// How fast this device reads and writes memory: the ceiling of norms, embedding and pooling.
// Grid: a thread per four numbers. Dispatched by gpu/ceilings.py.
struct Params { vectors: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < p.vectors) { out[id.x] = x[id.x]; }
}
