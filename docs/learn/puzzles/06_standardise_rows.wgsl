// op: standardise_rows
// Puzzle 6: why two passes. out = (x - mean) / sqrt(variance + eps), for each row: a layer norm without its weights.
//
// The variance is the mean of (x - mean)^2. It is also the mean of x^2 less the square of the mean, which takes one
// pass over the row instead of two. But f32 has seven digits: where the numbers are near 100, both terms are near
// 10,000, and of a difference of about 1 only three digits are left. One of the cases has such numbers.
//
// TODO: compute the variance in a second pass, once the mean is known.
struct Params { T: u32, C: u32, eps: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = group.y * p.C;
  var sum = 0.0;
  var squares = 0.0;
  for (var c = lane; c < p.C; c += 64u) {
    let v = x[first + c];
    sum += v;
    squares += v * v;
  }
  let mean = sum_lanes(sum, lane) / f32(p.C);
  let variance = sum_lanes(squares, lane) / f32(p.C) - mean * mean;
  let scale = 1.0 / sqrt(variance + p.eps);
  for (var c = lane; c < p.C; c += 64u) { out[first + c] = (x[first + c] - mean) * scale; }
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
