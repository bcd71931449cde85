// The mean and 1 / sqrt(variance + eps) of each row, computed as in layer_norm.wgsl.
// Grid: a workgroup per row. Declared in train/ops.py.
struct Params { T: u32, C: u32, eps: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec2<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.y * p.C;
  var sum = 0.0;
  for (var c = lane; c < p.C; c += LANES) { sum += x[row + c]; }
  let mean = row_sum(sum, lane) / f32(p.C);
  var square = 0.0;
  for (var c = lane; c < p.C; c += LANES) {
    let d = x[row + c] - mean;
    square = fma(d, d, square);
  }
  let variance = row_sum(square, lane) / f32(p.C);
  if (lane == 0u) { stats[group.y] = vec2(mean, 1.0 / sqrt(variance + p.eps)); }
}
