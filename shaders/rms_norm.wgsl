// x / sqrt(mean(x^2) + eps) * weight, over `size` columns at a time. Columns from K on are copied.
// Grid: a workgroup per `size` columns x and token y. Declared in graph/ops/norms.py.
struct Params { T: u32, N: u32, K: u32, size: u32, eps: f32 }
alias X = f32;
alias O = f32;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<O>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.y * p.N;
  let first = group.x * p.size;
  if (first >= p.K) {
    for (var c = first + lane; c < min(first + p.size, p.N); c += LANES) { out[row + c] = O(x[row + c]); }
    return;
  }
  var square = 0.0;
  for (var c = first + lane; c < first + p.size; c += LANES) {
    let v = f32(x[row + c]);
    square = fma(v, v, square);
  }
  let scale = 1.0 / sqrt(row_sum(square, lane) / f32(p.size) + p.eps);
  for (var c = first + lane; c < first + p.size; c += LANES) {
    out[row + c] = O(f32(x[row + c]) * scale * weight[c]);
  }
}
