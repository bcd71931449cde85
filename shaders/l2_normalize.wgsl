// x / max(|x|, SMALLEST), for each row.
// Grid: a workgroup per row, whose lanes hold it in registers. Declared in graph/ops/pooling.py.
struct Params { B: u32, C: u32 }
const HELD: u32 = 4u;
const SMALLEST: f32 = 1e-12; // a zero vector stays zero
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let width = p.C / WIDE;
  let first = group.y * width;
  var row: array<vec4<f32>, HELD>;
  var square = vec4<f32>();
  for (var i = 0u; i < HELD; i++) {
    let c = lane + i * LANES;
    row[i] = vec4<f32>();
    if (c < width) { row[i] = x[first + c]; }
    square = fma(row[i], row[i], square);
  }
  let norm = max(sqrt(row_sum(add_up(square), lane)), SMALLEST);
  for (var i = 0u; i < HELD; i++) {
    let c = lane + i * LANES;
    if (c < width) { out[first + c] = row[i] / norm; }
  }
}
