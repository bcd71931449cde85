// x @ weight for GPUs.
// Grid: a workgroup per TILE_T x TILE_N outputs, in the order of tile_order.wgsl, a thread per THREAD_ROWS rows x 2 groups of
// four columns.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
//
// Slices of SLICE4 x 4 k of both matrices are staged in workgroup memory, so each element is read once per tile. Each output has
// one f32 accumulator with k ascending: its bits depend neither on the tile nor on T. gpu/tiles.py sets the fastest tile.
const TILE_T: u32 = 64u;
const TILE_N: u32 = 64u;
const THREAD_ROWS: u32 = 8u;
const SLICE4: u32 = 4u; // groups of four k staged at a time
const THREADS_N: u32 = TILE_N / 8u;
const THREADS_T: u32 = TILE_T / THREAD_ROWS;
const PITCH: u32 = TILE_T + 1u; // padded, so that simultaneous reads hit different banks

var<workgroup> x_slice: array<vec4<f32>, SLICE4 * PITCH>;
var<workgroup> weight_slice: array<vec4<f32>, SLICE4 * TILE_N>;

@compute @workgroup_size(THREADS_N * THREADS_T)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let k4s = p.K / 4u;
  let n4s = p.N / 4u;
  let tile = tile_order(group.xy);
  let row0 = tile.y * TILE_T;
  let column0 = tile.x * (TILE_N / 4u);
  let thread_t = lane / THREADS_N;
  let thread_n = lane % THREADS_N;
  var left: array<vec4<f32>, THREAD_ROWS>;
  var right: array<vec4<f32>, THREAD_ROWS>;

  for (var k4 = 0u; k4 < k4s; k4 += SLICE4) {
    for (var i = lane; i < TILE_T * SLICE4; i += THREADS_N * THREADS_T) {
      let t = row0 + i / SLICE4;
      let k = k4 + i % SLICE4;
      var value = vec4<f32>();
      if (t < p.T && k < k4s) { value = vec4<f32>(x[t * k4s + k]); }
      x_slice[(i % SLICE4) * PITCH + i / SLICE4] = value;
    }
    for (var i = lane; i < SLICE4 * TILE_N; i += THREADS_N * THREADS_T) {
      let k = k4 * 4u + i / (TILE_N / 4u);
      let n = column0 + i % (TILE_N / 4u);
      weight_slice[i] = vec4<f32>();
      if (k < p.K && n < n4s) { weight_slice[i] = columns(k, n); }
    }
    workgroupBarrier();
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
    finish(t, column0 + thread_n, left[r]);
    finish(t, column0 + thread_n + THREADS_N, right[r]);
  }
}
