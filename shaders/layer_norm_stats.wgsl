// The mean and 1 / sqrt(variance + eps) of each row, computed as in layer_norm.wgsl.
// Grid: a workgroup per row, whose lanes hold it in registers. Declared in train/ops.py.
struct Params { T: u32, C: u32, eps: f32 }
const HELD: u32 = 4u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> stats: array<vec2<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let width = p.C / WIDE;
  var row: array<vec4<f32>, HELD>;
  var sum = vec4<f32>();
  for (var i = 0u; i < HELD; i++) {
    let c = lane + i * LANES;
    row[i] = vec4<f32>();
    if (c < width) { row[i] = x[group.y * width + c]; }
    sum += row[i];
  }
  let mean = row_sum(add_up(sum), lane) / f32(p.C);
  var square = vec4<f32>();
  for (var i = 0u; i < HELD; i++) {
    if (lane + i * LANES < width) {
      row[i] -= mean;
      square = fma(row[i], row[i], square);
    }
  }
  let variance = row_sum(add_up(square), lane) / f32(p.C);
  if (lane == 0u) { stats[group.y] = vec2(mean, 1.0 / sqrt(variance + p.eps)); }
}
