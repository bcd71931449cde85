// All pairs of rows of two matrices: dot product or distance.
// Grid: a workgroup of 64 threads per PAIRS x PAIRS pairs, a thread per 4 x 4. Declared in graph/ops/pooling.py.
//
// Slices of both matrices are staged in workgroup memory, one column of four neighbouring rows in a vec4. A column has one vec4
// more than it needs, so that the threads that write neighbouring columns use different banks.
struct Params { M: u32, C: u32, N: u32 }
const DOT: u32 = 0u;
const EUCLIDEAN: u32 = 1u;
const MANHATTAN: u32 = 2u;
const METRIC: u32 = DOT;
const PAIRS: u32 = 32u;
const SLICE: u32 = 16u; // columns
const FOURS: u32 = PAIRS / 4u;
const THREADS: u32 = FOURS * FOURS;
const PITCH: u32 = FOURS + 1u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<workgroup> a_slice: array<vec4<f32>, SLICE * PITCH>;
var<workgroup> b_slice: array<vec4<f32>, SLICE * PITCH>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let column = lane % FOURS; // of the thread's pairs
  let row = lane / FOURS;
  var sums: array<vec4<f32>, 4>;
  for (var r = 0u; r < 4u; r++) { sums[r] = vec4<f32>(); }
  for (var c0 = 0u; c0 < p.C; c0 += SLICE) {
    for (var i = 0u; i < SLICE * FOURS / THREADS; i++) {
      let c = (lane + i * THREADS) % SLICE;
      let four = (lane + i * THREADS) / SLICE;
      a_slice[c * PITCH + four] = a_column(group.y * PAIRS + 4u * four, c0 + c);
      b_slice[c * PITCH + four] = b_column(group.x * PAIRS + 4u * four, c0 + c);
    }
    workgroupBarrier();
    for (var c = 0u; c < SLICE; c++) {
      let left = a_slice[c * PITCH + row];
      let right = b_slice[c * PITCH + column];
      for (var r = 0u; r < 4u; r++) {
        if (METRIC == DOT) {
          sums[r] = fma(vec4(left[r]), right, sums[r]);
        } else if (METRIC == EUCLIDEAN) {
          sums[r] = fma(left[r] - right, left[r] - right, sums[r]);
        } else {
          sums[r] += abs(left[r] - right);
        }
      }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < 4u; r++) {
    let m = group.y * PAIRS + row * 4u + r;
    for (var i = 0u; i < 4u; i++) {
      let n = group.x * PAIRS + column * 4u + i;
      if (m < p.M && n < p.N) { out[m * p.N + n] = select(sums[r][i], sqrt(sums[r][i]), METRIC == EUCLIDEAN); }
    }
  }
}

// Four neighbouring rows in one column. Rows past the last one repeat it, as their pairs are not stored; columns are 0.
fn a_column(m: u32, column: u32) -> vec4<f32> {
  let c = min(column, p.C - 1u);
  let last = p.M - 1u;
  let v = vec4(a[place(m, last, c)], a[place(m + 1u, last, c)], a[place(m + 2u, last, c)], a[place(m + 3u, last, c)]);
  return select(vec4<f32>(), v, column < p.C);
}

fn b_column(n: u32, column: u32) -> vec4<f32> {
  let c = min(column, p.C - 1u);
  let last = p.N - 1u;
  let v = vec4(b[place(n, last, c)], b[place(n + 1u, last, c)], b[place(n + 2u, last, c)], b[place(n + 3u, last, c)]);
  return select(vec4<f32>(), v, column < p.C);
}

fn place(row: u32, last: u32, c: u32) -> u32 { return min(row, last) * p.C + c; }
