// With n = (x - mean) / std and d = dout * weight: (d - mean(d) - n mean(d n)) / std, for each row.
// Grid: a workgroup per row, whose lanes hold n and d in registers. Declared in train/ops.py.
struct Params { T: u32, C: u32 }
const HELD: u32 = 4u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let width = p.C / WIDE;
  let first = group.y * width;
  let mean = stats[group.y].x;
  let scale = stats[group.y].y;
  var n: array<vec4<f32>, HELD>;
  var d: array<vec4<f32>, HELD>;
  var sum = vec4<f32>();
  var inner = vec4<f32>();
  for (var i = 0u; i < HELD; i++) {
    let c = lane + i * LANES;
    n[i] = vec4<f32>();
    d[i] = vec4<f32>();
    if (c < width) {
      n[i] = (x[first + c] - mean) * scale;
      d[i] = dout[first + c] * weight[c];
    }
    sum += d[i];
    inner = fma(d[i], n[i], inner);
  }
  let mean_d = row_sum(add_up(sum), lane) / f32(p.C);
  let mean_dn = row_sum(add_up(inner), lane) / f32(p.C);
  for (var i = 0u; i < HELD; i++) {
    let c = lane + i * LANES;
    if (c < width) { dx[first + c] = scale * (d[i] - mean_d - n[i] * mean_dn); }
  }
}
