// op: standardise_rows
// The engine does the same in shaders/layer_norm.wgsl, with the row in registers, so that memory is read once.
struct Params { T: u32, C: u32, eps: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let first = group.y * p.C;
  var sum = 0.0;
  for (var c = lane; c < p.C; c += 64u) { sum += x[first + c]; }
  let mean = sum_lanes(sum, lane) / f32(p.C);
  var squares = 0.0;
  for (var c = lane; c < p.C; c += 64u) {
    let v = x[first + c] - mean;
    squares += v * v;
  }
  let scale = 1.0 / sqrt(sum_lanes(squares, lane) / f32(p.C) + p.eps);
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
