// x / max(|x|, SMALLEST), for each row.
// Grid: a workgroup per row. Declared in graph/ops/pooling.py.
struct Params { B: u32, C: u32 }
const SMALLEST: f32 = 1e-12; // a zero vector stays zero
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row = group.y * p.C;
  var square = 0.0;
  for (var c = lane; c < p.C; c += LANES) { square = fma(x[row + c], x[row + c], square); }
  let norm = max(sqrt(row_sum(square, lane)), SMALLEST);
  for (var c = lane; c < p.C; c += LANES) { out[row + c] = x[row + c] / norm; }
}
