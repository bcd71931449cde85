// x @ weight where K or N is not a multiple of four: loads weights with `weight_at`, stores with `finish`; k ascends.
// Grid: a thread per element, x over columns and y over tokens.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
//
// Workgroups are one row high: a driver of Adreno 840 computes wrong products in workgroups of 8 x 8 (executorch#22328).
const TILE_T: u32 = 1u;
const TILE_N: u32 = 64u;

@compute @workgroup_size(TILE_N)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.N || id.y >= p.T) { return; }
  var sum = 0.0;
  for (var k = 0u; k < p.K; k++) { sum = fma(f32(x[id.y * p.K + k]), weight_at(k, id.x), sum); }
  finish(id.y, id.x, sum);
}
