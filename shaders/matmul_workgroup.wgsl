// x @ weight for GPUs.
// Grid: a workgroup per TILE_T x TILE_N outputs, in the order of matmul_order.wgsl, a thread per THREAD_ROWS rows x 2 groups of
// four columns.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
//
// Slices of SLICE4 x 4 k of both matrices are staged in workgroup memory k by k, so each element is read once per tile. A step of
// the innermost loop changes each sum once: with several k in a step, Intel's compiler in Mesa holds each sum twice.
// Each output has one f32 accumulator with k ascending, part by part: its bits depend neither on the tile nor on T. gpu/tiles.py
// sets the fastest tile.
const TILE_T: u32 = 64u;
const TILE_N: u32 = 64u;
const THREAD_ROWS: u32 = 8u;
const SLICE4: u32 = 4u; // groups of four k staged at a time
const COLUMNS4: u32 = TILE_N / 4u;
const THREADS_N: u32 = TILE_N / 8u;
const THREADS_T: u32 = TILE_T / THREAD_ROWS;
const AHEAD: bool = THREAD_ROWS <= 4u; // whether the next slice is loaded while one is multiplied: more rows leave no registers
const LANES: u32 = THREADS_N * THREADS_T;
const X_LOADS: u32 = TILE_T * SLICE4 / LANES; // groups of four that a thread loads
const WEIGHT_LOADS: u32 = TILE_N * SLICE4 / LANES;
const PITCH: u32 = TILE_T / 4u + 1u; // groups of four rows, padded, so that fewer simultaneous writes hit the same bank

var<workgroup> x_slice: array<vec4<f32>, SLICE4 * 4u * PITCH>;
var<workgroup> weight_slice: array<vec4<f32>, SLICE4 * 4u * COLUMNS4>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let k4s = p.K / 4u;
  let tile = tile_order(group.xy);
  let row0 = tile.y * TILE_T;
  let column0 = tile.x * COLUMNS4;
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
        keep_part(row0 + tile_row(thread_t, r), column0 + thread_n, left[r], k4 == part);
        keep_part(row0 + tile_row(thread_t, r), column0 + thread_n + THREADS_N, right[r], k4 == part);
        left[r] = vec4<f32>();
        right[r] = vec4<f32>();
      }
    }
    for (var i = 0u; i < X_LOADS; i++) {
      let at = lane + i * LANES;
      if (!AHEAD) { next_x[i] = load_x(row0, k4, at); }
      put_x(at, vec4<f32>(next_x[i]));
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
    let slice_k = min(4u * SLICE4, p.K - 4u * k4);
    for (var k = 0u; k < slice_k; k++) {
      let w_left = weight_slice[k * COLUMNS4 + thread_n];
      let w_right = weight_slice[k * COLUMNS4 + thread_n + THREADS_N];
      for (var g = 0u; g < THREAD_ROWS / 4u; g++) {
        let v = x_slice[k * PITCH + thread_t + g * THREADS_T];
        for (var r = 0u; r < 4u; r++) {
          left[4u * g + r] = fma(vec4<f32>(v[r]), w_left, left[4u * g + r]);
          right[4u * g + r] = fma(vec4<f32>(v[r]), w_right, right[4u * g + r]);
        }
      }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < THREAD_ROWS; r++) {
    let t = row0 + tile_row(thread_t, r);
    if (PARTS > 1u) {
      left[r] = add_parts(t, column0 + thread_n, left[r]);
      right[r] = add_parts(t, column0 + thread_n + THREADS_N, right[r]);
    }
    finish(t, column0 + thread_n, left[r]);
    finish(t, column0 + thread_n + THREADS_N, right[r]);
  }
}

// The row in its tile of a thread's r-th one.
fn tile_row(thread_t: u32, r: u32) -> u32 { return 4u * (thread_t + r / 4u * THREADS_T) + r % 4u; }

// Stages the i-th group of four k of a slice, of one row: beside each other lie the rows of one k.
fn put_x(i: u32, v: vec4<f32>) {
  let row = i / SLICE4;
  for (var j = 0u; j < 4u; j++) { x_slice[(i % SLICE4 * 4u + j) * PITCH + row / 4u][row % 4u] = v[j]; }
}

// The i-th group of four of a slice from k4 on; zeros outside the matrix, as its rows past the last are multiplied too.
fn load_x(row0: u32, k4: u32, i: u32) -> Row4 {
  let t = row0 + i / SLICE4;
  let k = k4 + i % SLICE4;
  var v = Row4();
  if (t < p.T && k < p.K / 4u) { v = x[t * (p.K / 4u) + k]; }
  return v;
}

fn load_weight(column0: u32, k4: u32, i: u32) -> Columns4 {
  let k = k4 * 4u + i / COLUMNS4;
  let n = column0 + i % COLUMNS4;
  var v = Columns4();
  if (k < p.K && n < p.N / 4u) { v = load_columns(k, n); }
  return v;
}
