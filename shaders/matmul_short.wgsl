// x @ weight for GPUs and few rows: many lanes load a long slice of a few columns, so that it takes little longer than to read
// the weights.
// Grid: a workgroup per TILE_T x TILE_N outputs, in the order of tile_order.wgsl.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
//
// All lanes load: a slice is some 8 KiB of weights, and the next one is on its way, in registers, while one is multiplied.
// k ascends in one f32 accumulator, as in matmul_workgroup.wgsl, so the bits are the same.
const TILE_T: u32 = 8u; // a power of two, 8 at least
const TILE_N: u32 = 16u;
const LANES: u32 = 128u;
const SLICE4: u32 = 512u / max(TILE_T, TILE_N); // groups of four k staged at a time: 16 KiB of workgroup memory at most
const THREADS_N: u32 = TILE_N / 4u;
const ROWS_EACH: u32 = max(1u, TILE_T * THREADS_N / LANES); // of outputs, per thread
const THREADS_T: u32 = TILE_T / ROWS_EACH;
const UNROLLED: u32 = 4u;
const X_LOADS: u32 = TILE_T * SLICE4 / LANES; // groups of four that a lane loads
const WEIGHT_LOADS: u32 = TILE_N * SLICE4 / LANES;

var<workgroup> x_slice: array<vec4<f32>, SLICE4 * TILE_T>;
var<workgroup> weight_slice: array<vec4<f32>, SLICE4 * TILE_N>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let k4s = p.K / 4u;
  let n4s = p.N / 4u;
  let tile = tile_order(group.xy);
  let row0 = tile.y * TILE_T;
  let column0 = tile.x * THREADS_N;
  let thread_t = lane / THREADS_N;
  let thread_n = lane % THREADS_N;
  var next_x: array<Row4, X_LOADS>;
  var next_weight: array<Columns4, WEIGHT_LOADS>;
  var sum: array<vec4<f32>, ROWS_EACH>;
  for (var r = 0u; r < ROWS_EACH; r++) { sum[r] = vec4<f32>(); }
  for (var i = 0u; i < X_LOADS; i++) { next_x[i] = load_x(row0, 0u, lane + i * LANES); }
  for (var i = 0u; i < WEIGHT_LOADS; i++) { next_weight[i] = load_weight(column0, 0u, lane + i * LANES); }

  for (var k4 = 0u; k4 < k4s; k4 += SLICE4) {
    for (var i = 0u; i < X_LOADS; i++) {
      let at = lane + i * LANES;
      let s = at % SLICE4;
      x_slice[s * TILE_T + ((at / SLICE4) ^ s) % TILE_T] = vec4<f32>(next_x[i]);
    }
    for (var i = 0u; i < WEIGHT_LOADS; i++) { weight_slice[lane + i * LANES] = widen(next_weight[i]); }
    workgroupBarrier();
    for (var i = 0u; i < X_LOADS; i++) { next_x[i] = load_x(row0, k4 + SLICE4, lane + i * LANES); }
    for (var i = 0u; i < WEIGHT_LOADS; i++) { next_weight[i] = load_weight(column0, k4 + SLICE4, lane + i * LANES); }
    if (thread_t < THREADS_T) {
      for (var s = 0u; s < SLICE4; s += UNROLLED) {
        for (var u = 0u; u < UNROLLED; u++) {
          let at = s + u;
          var rows: array<vec4<f32>, ROWS_EACH>;
          for (var r = 0u; r < ROWS_EACH; r++) { rows[r] = x_slice[at * TILE_T + ((thread_t + r * THREADS_T) ^ at) % TILE_T]; }
          for (var j = 0u; j < 4u; j++) {
            let w = weight_slice[(at * 4u + j) * THREADS_N + thread_n];
            for (var r = 0u; r < ROWS_EACH; r++) { sum[r] = fma(vec4<f32>(rows[r][j]), w, sum[r]); }
          }
        }
      }
    }
    workgroupBarrier();
  }
  if (thread_t < THREADS_T) {
    for (var r = 0u; r < ROWS_EACH; r++) { finish(row0 + thread_t + r * THREADS_T, column0 + thread_n, sum[r]); }
  }
}

// The i-th group of four of a slice from k4 on; zeros outside the matrix, as these are multiplied too.
fn load_x(row0: u32, k4: u32, i: u32) -> Row4 {
  let t = row0 + i / SLICE4;
  let k = k4 + i % SLICE4;
  var v = Row4();
  if (t < p.T && k < p.K / 4u) { v = x[t * (p.K / 4u) + k]; }
  return v;
}

fn load_weight(column0: u32, k4: u32, i: u32) -> Columns4 {
  let k = k4 * 4u + i / THREADS_N;
  let n = column0 + i % THREADS_N;
  var v = Columns4();
  if (k < p.K && n < p.N / 4u) { v = load_columns(k, n); }
  return v;
}
