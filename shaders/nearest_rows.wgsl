// The best rows of b for each query of a, by the dot product: `keep` of each segment, their scores, then their places in it.
// Grid: a workgroup of 256 threads per SEGMENT rows and QUERIES queries, LANES threads per row.
// Declared in graph/ops/nearest_rows.py.
//
// LANES threads read neighbouring columns of a row, ROWS rows at a time, so that several loads are under way. A row's sum is that
// of its lanes in their order. Then a bitonic sort orders the segment: by falling score, equal ones by place, NaN first.
struct Params { M: u32, C: u32, N: u32, K: u32, keep: u32 }
const SEGMENT: u32 = 512u;
const QUERIES: u32 = 2u;
const THREADS: u32 = 256u;
const LANES: u32 = 8u;
const ROWS: u32 = 2u;
const APART: u32 = THREADS / LANES; // between the rows of a thread
const TOGETHER: u32 = APART * ROWS; // rows that are added up between two barriers
const NO_ROW: f32 = 2.0;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<workgroup> parts: array<f32, THREADS * ROWS * QUERIES>;
var<workgroup> score: array<f32, SEGMENT * QUERIES>;
var<workgroup> place: array<u32, SEGMENT * QUERIES>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let width = p.C / 4u;
  let lane = thread % LANES;
  let first = group.x * SEGMENT;
  let query = group.y * QUERIES;
  let q0 = min(query, p.M - 1u) * width;
  let q1 = min(query + 1u, p.M - 1u) * width;
  for (var start = 0u; start < SEGMENT; start += TOGETHER) {
    var rows: array<u32, ROWS>;
    var sums0: array<vec4<f32>, ROWS>;
    var sums1: array<vec4<f32>, ROWS>;
    for (var r = 0u; r < ROWS; r++) {
      rows[r] = min(first + start + r * APART + thread / LANES, p.N - 1u) * width;
      sums0[r] = vec4<f32>();
      sums1[r] = vec4<f32>();
    }
    for (var c = lane; c < width; c += LANES) {
      let left0 = a[q0 + c];
      let left1 = a[q1 + c];
      for (var r = 0u; r < ROWS; r++) {
        let right = b[rows[r] + c];
        sums0[r] = fma(left0, right, sums0[r]);
        sums1[r] = fma(left1, right, sums1[r]);
      }
    }
    for (var r = 0u; r < ROWS; r++) {
      parts[r * THREADS + thread] = add_four(sums0[r]);
      parts[(ROWS + r) * THREADS + thread] = add_four(sums1[r]);
    }
    workgroupBarrier();
    if (thread < TOGETHER * QUERIES) {
      let row = thread % TOGETHER;
      let q = thread / TOGETHER;
      let at = (q * ROWS + row / APART) * THREADS + (row % APART) * LANES;
      var sum = 0.0;
      for (var i = 0u; i < LANES; i++) { sum += parts[at + i]; }
      let to = q * SEGMENT + start + row;
      score[to] = select(LOWEST, sum, first + start + row < p.N);
      place[to] = start + row;
    }
    workgroupBarrier();
  }
  for (var size = 2u; size <= SEGMENT; size *= 2u) {
    for (var step = size / 2u; step > 0u; step /= 2u) {
      let low = 2u * step * (thread / step) + thread % step;
      for (var q = 0u; q < QUERIES; q++) {
        let i = q * SEGMENT + low;
        let j = i + step;
        if (is_better(j, i) == ((low & size) == 0u)) { swap(i, j); }
      }
      workgroupBarrier();
    }
  }
  for (var i = thread; i < p.keep * QUERIES; i += THREADS) {
    let q = i / p.keep;
    let best = q * SEGMENT + i % p.keep;
    let to = (query + q) * p.K + group.x * p.keep + i % p.keep;
    if (query + q < p.M) {
      let there = first + place[best] < p.N;
      out[to] = select(0.0, score[best], there);
      out[to + p.K / 2u] = select(NO_ROW, f32(place[best]) / f32(SEGMENT), there);
    }
  }
}

const LOWEST: f32 = -3.4028234e38;

fn add_four(v: vec4<f32>) -> f32 { return v.x + v.y + v.z + v.w; }

fn is_better(i: u32, j: u32) -> bool {
  let x = score[i];
  let y = score[j];
  let x_nan = is_nan(x);
  if (x_nan != is_nan(y)) { return x_nan; }
  if (!x_nan && x != y) { return x > y; }
  return place[i] < place[j];
}

fn swap(i: u32, j: u32) {
  let x = score[i];
  score[i] = score[j];
  score[j] = x;
  let y = place[i];
  place[i] = place[j];
  place[j] = y;
}
