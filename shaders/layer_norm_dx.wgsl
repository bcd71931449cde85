// With n = (x - mean) / std and d = dout * weight: (d - mean(d) - n mean(d n)) / std, for each row.
// Grid: a workgroup per row. Declared in train/ops.py.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> weight: array<f32>;
@group(0) @binding(4) var<storage, read> dout: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.y * p.C;
  let mean = stats[group.y].x;
  let scale = stats[group.y].y;
  var sum = 0.0;
  var inner = 0.0;
  for (var c = lane; c < p.C; c += LANES) {
    let d = dout[row + c] * weight[c];
    sum += d;
    inner = fma(d, (x[row + c] - mean) * scale, inner);
  }
  let mean_d = row_sum(sum, lane) / f32(p.C);
  let mean_dn = row_sum(inner, lane) / f32(p.C);
  for (var c = lane; c < p.C; c += LANES) {
    let n = (x[row + c] - mean) * scale;
    dx[row + c] = scale * (fma(dout[row + c], weight[c], -mean_d) - n * mean_dn);
  }
}
