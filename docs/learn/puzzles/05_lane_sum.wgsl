// op: lane_sum
// Puzzle 5: the missing barrier. out has the sum of each row. One workgroup computes one row, group.y.
//
// Each of the 64 lanes adds up every 64th column. Then they share what they found in `partial`, which lies in workgroup
// memory: 32 lanes add what the other 32 have, then 16, 8, 4, 2, 1. But the lanes of a workgroup do not run in step: a
// lane may read before another one has written. workgroupBarrier() lets no lane go on before all have come to it, so
// all must come to it: never put it where only some lanes pass, such as inside `if (lane < half)`.
//
// TODO: put barriers where a lane reads what another one wrote.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var sum = 0.0;
  for (var c = lane; c < p.C; c += 64u) { sum += x[group.y * p.C + c]; }
  partial[lane] = sum;
  for (var half = 32u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
  }
  if (lane == 0u) { out[group.y] = partial[0]; }
}
