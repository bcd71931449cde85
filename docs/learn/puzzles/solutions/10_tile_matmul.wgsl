// op: tile_matmul
// Rows and columns past the last one repeat it while they are read, and are not written.
struct Params { T: u32, K: u32, N: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let r0 = group.y * 32u + lane.y * 4u;
  let c0 = group.x * 32u + lane.x * 4u;
  var sums: array<vec4<f32>, 4>; // one for each row
  for (var k = 0u; k < p.K; k++) {
    var right = vec4<f32>();
    for (var i = 0u; i < 4u; i++) { right[i] = weight[k * p.N + min(c0 + i, p.N - 1u)]; }
    for (var r = 0u; r < 4u; r++) { sums[r] += x[min(r0 + r, p.T - 1u) * p.K + k] * right; }
  }
  for (var r = 0u; r < 4u; r++) {
    for (var i = 0u; i < 4u; i++) {
      if (r0 + r < p.T && c0 + i < p.N) { out[(r0 + r) * p.N + c0 + i] = sums[r][i]; }
    }
  }
}
