// x transposed @ dout for GPUs: SLICE tokens of both operands at a time are staged in workgroup memory.
// Grid: a workgroup per TILE_K x TILE_N outputs of a part, z over parts; a thread per 8 rows x 2 groups of four columns.
// Used by linear_dweight.
//
// Both operands lie in memory token by token, so they are staged as they are, without a transposition.
const TILE_K: u32 = 64u;
const TILE_N: u32 = 64u;
const THREAD_ROWS: u32 = 8u;
const SLICE: u32 = 16u; // tokens staged at a time
const THREADS_N: u32 = TILE_N / 8u;
const THREADS_K: u32 = TILE_K / THREAD_ROWS;
const LANES: u32 = THREADS_N * THREADS_K;
const K4S: u32 = TILE_K / 4u; // groups of four of a tile
const N4S: u32 = TILE_N / 4u;
const X_LOADS: u32 = SLICE * K4S / LANES; // groups of four that a thread loads
const DOUT_LOADS: u32 = SLICE * N4S / LANES;

var<workgroup> x_slice: array<vec4<f32>, SLICE * K4S>;
var<workgroup> dout_slice: array<vec4<f32>, SLICE * N4S>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let row0 = group.y * K4S; // the tile's first groups of four
  let column0 = group.x * N4S;
  let thread_k = lane / THREADS_N;
  let thread_n = lane % THREADS_N;
  let first = group.z * part_length();
  let end = min(first + part_length(), p.T);
  var left: array<vec4<f32>, THREAD_ROWS>;
  var right: array<vec4<f32>, THREAD_ROWS>;
  var next_x: array<vec4<f32>, X_LOADS>;
  var next_dout: array<vec4<f32>, DOUT_LOADS>;
  for (var t0 = first; t0 < end; t0 += SLICE) {
    for (var i = 0u; i < X_LOADS; i++) { // all loads are under way before the first is stored
      let at = lane + i * LANES;
      next_x[i] = load_x(t0 + at / K4S, row0 + at % K4S, end);
    }
    for (var i = 0u; i < DOUT_LOADS; i++) {
      let at = lane + i * LANES;
      next_dout[i] = load_dout(t0 + at / N4S, column0 + at % N4S, end);
    }
    for (var i = 0u; i < X_LOADS; i++) { x_slice[lane + i * LANES] = next_x[i]; }
    for (var i = 0u; i < DOUT_LOADS; i++) { dout_slice[lane + i * LANES] = next_dout[i]; }
    workgroupBarrier();
    for (var s = 0u; s < SLICE; s++) {
      let d_left = dout_slice[s * N4S + thread_n];
      let d_right = dout_slice[s * N4S + thread_n + THREADS_N];
      for (var g = 0u; g < THREAD_ROWS / 4u; g++) {
        let v = x_slice[s * K4S + thread_k + g * THREADS_K];
        for (var r = 0u; r < 4u; r++) {
          left[4u * g + r] = fma(vec4(v[r]), d_left, left[4u * g + r]);
          right[4u * g + r] = fma(vec4(v[r]), d_right, right[4u * g + r]);
        }
      }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < THREAD_ROWS; r++) {
    let row = 4u * (row0 + thread_k + r / 4u * THREADS_K) + r % 4u;
    finish(group.z, row, column0 + thread_n, left[r]);
    finish(group.z, row, column0 + thread_n + THREADS_N, right[r]);
  }
}

// A group of four of token t; zeros outside the part and the matrix, as these are multiplied too.
fn load_x(t: u32, k4: u32, end: u32) -> vec4<f32> {
  var v = vec4<f32>();
  if (t < end && k4 < p.K / 4u) { v = x[t * (p.K / 4u) + k4]; }
  return v;
}

fn load_dout(t: u32, n4: u32, end: u32) -> vec4<f32> {
  var v = vec4<f32>();
  if (t < end && n4 < p.N / 4u) { v = dout[t * (p.N / 4u) + n4]; }
  return v;
}
