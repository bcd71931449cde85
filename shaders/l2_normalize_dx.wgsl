// With u = x / |x|: (dout - u (u dout)) / |x|. Where |x| is not above SMALLEST: dout / SMALLEST.
// Grid: a workgroup per row. Declared in train/ops.py.
struct Params { B: u32, C: u32 }
const SMALLEST: f32 = 1e-12;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dout: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.y * p.C;
  var square = 0.0;
  for (var c = lane; c < p.C; c += LANES) { square = fma(x[row + c], x[row + c], square); }
  let norm = sqrt(row_sum(square, lane));
  let scale = 1.0 / max(norm, SMALLEST);
  let held = select(1.0, 0.0, norm > SMALLEST);
  var inner = 0.0;
  for (var c = lane; c < p.C; c += LANES) { inner = fma(x[row + c] * scale, dout[row + c], inner); }
  let along = row_sum(inner, lane) * (1.0 - held);
  for (var c = lane; c < p.C; c += LANES) { dx[row + c] = (dout[row + c] - x[row + c] * scale * along) * scale; }
}
