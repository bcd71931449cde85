// x transposed @ dout for drivers that compute on a CPU, where nothing is staged: both operands are read in memory order.
// Grid: a workgroup per TILE_K x TILE_N outputs of a part, z over parts.
// Used by linear_dweight.
//
// For each token a thread loads THREAD_ROWS elements of x and two groups of four of dout, and adds each product to its own sum.
const TILE_K: u32 = 32u; // of one thread, as in matmul_registers.wgsl
const TILE_N: u32 = 64u;
const THREAD_ROWS: u32 = 32u;
const THREADS_N: u32 = TILE_N / 8u;
const THREADS_K: u32 = TILE_K / THREAD_ROWS;

@compute @workgroup_size(THREADS_N * THREADS_K)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let k4s = p.K / 4u;
  let n4s = p.N / 4u;
  let k = group.y * (TILE_K / 4u) + lane / THREADS_N; // the first of its groups of four
  let n = group.x * (TILE_N / 4u) + lane % THREADS_N;
  let first = group.z * part_length();
  let end = min(first + part_length(), p.T);
  var left: array<vec4<f32>, THREAD_ROWS>;
  var right: array<vec4<f32>, THREAD_ROWS>;
  for (var t = first; t < end; t++) { // groups past the last one repeat it and are not stored
    let d_left = dout[t * n4s + min(n, n4s - 1u)];
    let d_right = dout[t * n4s + min(n + THREADS_N, n4s - 1u)];
    for (var g = 0u; g < THREAD_ROWS / 4u; g++) {
      let v = x[t * k4s + min(k + g * THREADS_K, k4s - 1u)];
      for (var r = 0u; r < 4u; r++) {
        left[4u * g + r] = fma(vec4(v[r]), d_left, left[4u * g + r]);
        right[4u * g + r] = fma(vec4(v[r]), d_right, right[4u * g + r]);
      }
    }
  }
  for (var r = 0u; r < THREAD_ROWS; r++) {
    let row = 4u * (k + r / 4u * THREADS_K) + r % 4u;
    finish(group.z, row, n, left[r]);
    finish(group.z, row, n + THREADS_N, right[r]);
  }
}
