// (x - mean) / sqrt(variance + eps) * weight + bias, for each row. Two passes: mean(x^2) - mean^2 would lose digits.
// Grid: a workgroup per row. Declared in graph/ops/norms.py.
struct Params { T: u32, C: u32, eps: f32 }
alias O = f32;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<O>;

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
  let scale = 1.0 / sqrt(row_sum(square, lane) / f32(p.C) + p.eps);
  for (var c = lane; c < p.C; c += LANES) {
    out[row + c] = O(fma((x[row + c] - mean) * scale, weight[c], bias[c]));
  }
}
