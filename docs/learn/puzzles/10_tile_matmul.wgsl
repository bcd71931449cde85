// op: tile_matmul
// Puzzle 10: a tile in registers. out = x @ weight, where x has T rows of K columns and weight K rows of N columns.
//
// With one element a thread, each multiplication loads two numbers. A thread that computes 4 x 4 elements loads 4
// numbers of x and 4 of weight for 16 multiplications: a quarter. The grid counts on it: a workgroup of 8 x 8 threads
// has a tile of 32 x 32 elements, and a thread 4 rows and 4 columns of it, from row r0 and column c0 on.
//
// TODO: the thread computes one element of its sixteen. Keep the sums in an array of 4 vec4<f32>, and index it by a
// loop variable or a constant only, so that the compiler can keep it in registers.
struct Params { T: u32, K: u32, N: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let r0 = group.y * 32u + lane.y * 4u;
  let c0 = group.x * 32u + lane.x * 4u;
  var sum = 0.0;
  for (var k = 0u; k < p.K; k++) {
    if (r0 < p.T && c0 < p.N) { sum += x[r0 * p.K + k] * weight[k * p.N + c0]; }
  }
  if (r0 < p.T && c0 < p.N) { out[r0 * p.N + c0] = sum; }
}
