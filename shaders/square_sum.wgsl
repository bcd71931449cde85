// Sums of squares, for the norm of a gradient: one for each CHUNK numbers, written to `sums` from `first` on. The host adds them.
// Grid: a workgroup per CHUNK numbers. Dispatched by train/gpu.py.
struct Params { N: u32, first: u32 }
const CHUNK: u32 = 4096u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var square = 0.0;
  for (var i = group.x * CHUNK + lane; i < min((group.x + 1u) * CHUNK, p.N); i += LANES) { square = fma(x[i], x[i], square); }
  let sum = row_sum(square, lane);
  if (lane == 0u) { sums[p.first + group.x] = sum; }
}
