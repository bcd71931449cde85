// op: plain_softmax
// A lane without a column brings -3e38, which no maximum takes: a row of 3 columns leaves 61 such lanes.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = group.y * p.C;
  var most = -3e38;
  for (var c = lane; c < p.C; c += 64u) { most = max(most, x[first + c]); }
  let largest = max_lanes(most, lane);
  var sum = 0.0;
  for (var c = lane; c < p.C; c += 64u) { sum += exp(x[first + c] - largest); }
  let total = sum_lanes(sum, lane);
  for (var c = lane; c < p.C; c += 64u) { out[first + c] = exp(x[first + c] - largest) / total; }
}

fn max_lanes(value: f32, lane: u32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] = max(partial[lane], partial[lane + half]); }
    workgroupBarrier();
  }
  let largest = partial[0];
  workgroupBarrier();
  return largest;
}

// The sum of one value per lane, as in puzzle 5. Every lane gets it.
fn sum_lanes(value: f32, lane: u32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = 32u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  let total = partial[0];
  workgroupBarrier(); // before the next call writes
  return total;
}
