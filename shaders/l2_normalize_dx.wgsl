// With u = x / |x|: (dout - u (u dout)) / |x|. Where |x| is not above SMALLEST: dout / SMALLEST.
// Grid: a workgroup per row, whose lanes hold both in registers. Declared in train/ops.py.
struct Params { B: u32, C: u32 }
const HELD: u32 = 4u;
const SMALLEST: f32 = 1e-12;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> dx: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let width = p.C / WIDE;
  let first = group.y * width;
  var row: array<vec4<f32>, HELD>;
  var d: array<vec4<f32>, HELD>;
  var square = vec4<f32>();
  for (var i = 0u; i < HELD; i++) {
    let c = lane + i * LANES;
    row[i] = vec4<f32>();
    d[i] = vec4<f32>();
    if (c < width) {
      row[i] = x[first + c];
      d[i] = dout[first + c];
    }
    square = fma(row[i], row[i], square);
  }
  let norm = sqrt(row_sum(add_up(square), lane));
  let scale = 1.0 / max(norm, SMALLEST);
  let held = select(1.0, 0.0, norm > SMALLEST);
  var inner = vec4<f32>();
  for (var i = 0u; i < HELD; i++) { inner = fma(row[i] * scale, d[i], inner); }
  let along = row_sum(add_up(inner), lane) * (1.0 - held);
  for (var i = 0u; i < HELD; i++) {
    let c = lane + i * LANES;
    if (c < width) { dx[first + c] = (d[i] - row[i] * scale * along) * scale; }
  }
}
