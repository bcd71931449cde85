// x @ weight for GPUs.
// Grid: a workgroup per TILE_T x TILE_N outputs, in the order of matmul_order.wgsl, a thread per THREAD_ROWS rows x 2 groups of
// four columns.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
//
// Slices of SLICE4 x 4 k of both matrices are staged in workgroup memory, so each element is read once per tile. Each output has
// one f32 accumulator with k ascending, part by part: its bits depend neither on the tile nor on T. gpu/tiles.py sets the fastest
// tile.
const TILE_T: u32 = 64u;
const TILE_N: u32 = 64u;
const THREAD_ROWS: u32 = 8u;
const SLICE4: u32 = 4u; // groups of four k staged at a time
const THREADS_N: u32 = TILE_N / 8u;
const THREADS_T: u32 = TILE_T / THREAD_ROWS;
const AHEAD: bool = THREAD_ROWS <= 4u; // whether the next slice is loaded while one is multiplied: more rows leave no registers
const LANES: u32 = THREADS_N * THREADS_T;
const X_LOADS: u32 = TILE_T * SLICE4 / LANES; // groups of four that a thread loads
const WEIGHT_LOADS: u32 = TILE_N * SLICE4 / LANES;
const PITCH: u32 = TILE_T + 1u; // padded, so that simultaneous reads hit different banks

var<workgroup> x_slice: array<vec4<f32>, SLICE4 * PITCH>;
var<workgroup> weight_slice: array<vec4<f32>, SLICE4 * TILE_N>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let k4s = p.K / 4u;
  let tile = tile_order(group.xy);
  let row0 = tile.y * TILE_T;
  let column0 = tile.x * (TILE_N / 4u);
  let thread_t = lane / THREADS_N;
  let thread_n = lane % THREADS_N;
  var left: array<vec4<f32>, THREAD_ROWS>;
  var right: array<vec4<f32>, THREAD_ROWS>;
  var next_x: array<Row4, X_LOADS>;
  var next_weight: array<Columns4, WEIGHT_LOADS>;
  if (AHEAD) {
    for (var i = 0u; i < X_LOADS; i++) { next_x[i] = load_x(row0, 0u, lane + i * LANES); }
    for (var i = 0u; i < WEIGHT_LOADS; i++) { next_weight[i] = load_weight(column0, 0u, lane + i * LANES); }
  }

  let part = part_length();
  for (var k4 = 0u; k4 < k4s; k4 += SLICE4) {
    if (PARTS > 1u && k4 > 0u && k4 % part == 0u) {
      for (var r = 0u; r < THREAD_ROWS; r++) {
        keep_part(row0 + thread_t + r * THREADS_T, column0 + thread_n, left[r], k4 == part);
        keep_part(row0 + thread_t + r * THREADS_T, column0 + thread_n + THREADS_N, right[r], k4 == part);
        left[r] = vec4<f32>();
        right[r] = vec4<f32>();
      }
    }
    for (var i = 0u; i < X_LOADS; i++) {
      let at = lane + i * LANES;
      if (!AHEAD) { next_x[i] = load_x(row0, k4, at); }
      x_slice[at % SLICE4 * PITCH + at / SLICE4] = vec4<f32>(next_x[i]);
    }
    for (var i = 0u; i < WEIGHT_LOADS; i++) {
      if (!AHEAD) { next_weight[i] = load_weight(column0, k4, lane + i * LANES); }
      weight_slice[lane + i * LANES] = widen(next_weight[i]);
    }
    workgroupBarrier();
    if (AHEAD) {
      for (var i = 0u; i < X_LOADS; i++) { next_x[i] = load_x(row0, k4 + SLICE4, lane + i * LANES); }
      for (var i = 0u; i < WEIGHT_LOADS; i++) { next_weight[i] = load_weight(column0, k4 + SLICE4, lane + i * LANES); }
    }
    for (var s = 0u; s < SLICE4; s++) {
      var rows: array<vec4<f32>, THREAD_ROWS>;
      for (var r = 0u; r < THREAD_ROWS; r++) { rows[r] = x_slice[s * PITCH + thread_t + r * THREADS_T]; }
      for (var j = 0u; j < 4u; j++) {
        let at = (s * 4u + j) * (TILE_N / 4u) + thread_n;
        let w_left = weight_slice[at];
        let w_right = weight_slice[at + THREADS_N];
        for (var r = 0u; r < THREAD_ROWS; r++) {
          let v = vec4<f32>(rows[r][j]);
          left[r] = fma(v, w_left, left[r]);
          right[r] = fma(v, w_right, right[r]);
        }
      }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < THREAD_ROWS; r++) {
    let t = row0 + thread_t + r * THREADS_T;
    if (PARTS > 1u) {
      left[r] = add_parts(t, column0 + thread_n, left[r]);
      right[r] = add_parts(t, column0 + thread_n + THREADS_N, right[r]);
    }
    finish(t, column0 + thread_n, left[r]);
    finish(t, column0 + thread_n + THREADS_N, right[r]);
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
  let k = k4 * 4u + i / (TILE_N / 4u);
  let n = column0 + i % (TILE_N / 4u);
  var v = Columns4();
  if (k < p.K && n < p.N / 4u) { v = load_columns(k, n); }
  return v;
}
