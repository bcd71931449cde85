// transpose.wgsl where K or N is not a multiple of four. Neighbouring threads write neighbouring elements.
// Grid: a workgroup of 64 threads per TILE x TILE elements, sixteen for each thread. Declared in train/ops.py.
struct Params { K: u32, N: u32 }
const TILE: u32 = 32u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let k = group.y * TILE + lane % TILE;
  for (var i = lane / TILE; i < TILE; i += 2u) {
    let n = group.x * TILE + i;
    if (k < p.K && n < p.N) { out[n * p.K + k] = x[k * p.N + n]; }
  }
}
