// x @ weight for GPUs and few rows: many lanes load a long slice of a few columns, so that it takes little longer than to read
// the weights.
// Grid: a workgroup per TILE_T x TILE_N outputs, in the order of matmul_order.wgsl.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
//
// All lanes load: a slice is some 8 KiB of weights, and the next one is on its way, in registers, while one is multiplied. Each
// output has the sums of matmul_workgroup.wgsl, so the bits are the same. Where k has several parts and a tile is small, a slice
// has STEP groups of each part, and other lanes compute each.
const TILE_T: u32 = 8u; // a power of two, 8 at least
const TILE_N: u32 = 16u;
const LANES: u32 = 128u;
const SLICE4: u32 = 512u / max(TILE_T, TILE_N); // groups of four k staged at a time: 16 KiB of workgroup memory at most
const UNROLLED: u32 = 4u; // groups of four k
const THREADS_N: u32 = TILE_N / 4u;
const ROWS_EACH: u32 = max(1u, TILE_T * THREADS_N / LANES); // of outputs, per thread
const THREADS_T: u32 = TILE_T / ROWS_EACH;
const TOGETHER: u32 = clamp(LANES / (THREADS_T * THREADS_N), 1u, PARTS); // parts of k that are computed at the same time
const STEP: u32 = SLICE4 / TOGETHER; // groups of each part in a slice
const X_LOADS: u32 = TILE_T * SLICE4 / LANES; // groups of four that a lane loads
const WEIGHT_LOADS: u32 = TILE_N * SLICE4 / LANES;

var<workgroup> x_slice: array<vec4<f32>, SLICE4 * TILE_T>;
var<workgroup> weight_slice: array<vec4<f32>, SLICE4 * TILE_N>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = tile_order(group.xy);
  let row0 = tile.y * TILE_T;
  let column0 = tile.x * THREADS_N;
  let thread_n = lane % THREADS_N;
  let thread_t = lane / THREADS_N % THREADS_T;
  let thread_part = lane / (THREADS_N * THREADS_T);
  let part = part_length();
  let end = select(p.K / 4u, part, TOGETHER > 1u); // of the groups of four k that a thread adds up
  var next_x: array<Row4, X_LOADS>;
  var next_weight: array<Columns4, WEIGHT_LOADS>;
  var sum: array<vec4<f32>, ROWS_EACH>;
  var total: array<vec4<f32>, ROWS_EACH>; // of earlier parts
  for (var r = 0u; r < ROWS_EACH; r++) { sum[r] = vec4<f32>(); total[r] = vec4<f32>(); }
  for (var i = 0u; i < X_LOADS; i++) { next_x[i] = load_x(row0, 0u, lane, i); }
  for (var i = 0u; i < WEIGHT_LOADS; i++) { next_weight[i] = load_weight(column0, 0u, lane, i); }

  for (var k4 = 0u; k4 < end; k4 += STEP) {
    for (var i = 0u; i < X_LOADS; i++) {
      let s = lane % SLICE4;
      x_slice[s * TILE_T + ((lane / SLICE4 + i * (LANES / SLICE4)) ^ s) % TILE_T] = vec4<f32>(next_x[i]);
    }
    for (var i = 0u; i < WEIGHT_LOADS; i++) { weight_slice[lane + i * LANES] = widen(next_weight[i]); }
    workgroupBarrier();
    for (var i = 0u; i < X_LOADS; i++) { next_x[i] = load_x(row0, k4 + STEP, lane, i); }
    for (var i = 0u; i < WEIGHT_LOADS; i++) { next_weight[i] = load_weight(column0, k4 + STEP, lane, i); }
    if (PARTS > TOGETHER && k4 > 0u && k4 % part == 0u) {
      for (var r = 0u; r < ROWS_EACH; r++) { total[r] = add_sums(total[r], sum[r], k4 == part); sum[r] = vec4<f32>(); }
    }
    if (thread_part < TOGETHER) {
      for (var s = 0u; s < STEP; s += UNROLLED) {
        for (var u = 0u; u < UNROLLED; u++) {
          let at = thread_part * STEP + s + u;
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

  if (TOGETHER > 1u) {
    for (var r = 0u; r < ROWS_EACH; r++) { weight_slice[lane * ROWS_EACH + r] = sum[r]; }
    workgroupBarrier();
    if (thread_part == 0u) {
      for (var q = 1u; q < TOGETHER; q++) {
        for (var r = 0u; r < ROWS_EACH; r++) { sum[r] += weight_slice[(lane + q * THREADS_N * THREADS_T) * ROWS_EACH + r]; }
      }
    }
  } else if (PARTS > 1u) {
    for (var r = 0u; r < ROWS_EACH; r++) { sum[r] = total[r] + sum[r]; }
  }
  if (thread_part == 0u) {
    for (var r = 0u; r < ROWS_EACH; r++) { finish(row0 + thread_t + r * THREADS_T, column0 + thread_n, sum[r]); }
  }
}

fn add_sums(total: vec4<f32>, sum: vec4<f32>, first: bool) -> vec4<f32> {
  if (first) { return sum; }
  return total + sum;
}

// Which group of four k the s-th one of a slice is; past the end of its part: the end of k.
fn slice_k4(s: u32, k4: u32) -> u32 {
  let inside = k4 + s % STEP;
  return select(p.K / 4u, s / STEP * part_length() + inside, TOGETHER == 1u || inside < part_length());
}

// The i-th group of four that a lane loads of a slice from k4 on; zeros outside the matrix, as these are multiplied too.
// What i adds to an address is the same for all lanes, so a lane holds one address and not one for each i.
fn load_x(row0: u32, k4: u32, lane: u32, i: u32) -> Row4 {
  let t = row0 + lane / SLICE4;
  let below = i * (LANES / SLICE4);
  let k = slice_k4(lane % SLICE4, k4);
  var v = Row4();
  if (t + below < p.T && k < p.K / 4u) { v = x[t * (p.K / 4u) + k + below * (p.K / 4u)]; }
  return v;
}

fn load_weight(column0: u32, k4: u32, lane: u32, i: u32) -> Columns4 {
  let k = slice_k4(lane / TILE_N + i * (LANES / TILE_N), k4);
  let n = column0 + lane % THREADS_N;
  var v = Columns4();
  if (k < p.K / 4u && n < p.N / 4u) { v = load_columns(k * 4u + lane / THREADS_N % 4u, n); }
  return v;
}
