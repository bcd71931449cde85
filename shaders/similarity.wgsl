// All pairs of rows of two matrices: dot product or distance.
// Grid: a workgroup of 8 x 8 threads per 32 x 32 pairs, a thread per 4 x 4. Declared in graph/ops/pooling.py.
//
// Slices of both matrices are staged in workgroup memory.
struct Params { M: u32, C: u32, N: u32 }
const DOT: u32 = 0u;
const EUCLIDEAN: u32 = 1u;
const MANHATTAN: u32 = 2u;
const METRIC: u32 = DOT;
const SLICE: u32 = 16u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<workgroup> a_slice: array<f32, 32u * SLICE>;
var<workgroup> b_slice: array<f32, 32u * SLICE>;

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  var sums: array<vec4<f32>, 4>;
  for (var c0 = 0u; c0 < p.C; c0 += SLICE) {
    for (var i = lane; i < 32u * SLICE; i += 64u) {
      let c = c0 + i % SLICE;
      let m = group.y * 32u + i / SLICE;
      let n = group.x * 32u + i / SLICE;
      a_slice[i] = 0.0;
      b_slice[i] = 0.0;
      if (c < p.C && m < p.M) { a_slice[i] = a[m * p.C + c]; }
      if (c < p.C && n < p.N) { b_slice[i] = b[n * p.C + c]; }
    }
    workgroupBarrier();
    for (var c = 0u; c < SLICE; c++) {
      let at = local.x * 4u * SLICE + c;
      let right = vec4(b_slice[at], b_slice[at + SLICE], b_slice[at + 2u * SLICE], b_slice[at + 3u * SLICE]);
      for (var r = 0u; r < 4u; r++) {
        let left = vec4<f32>(a_slice[(local.y * 4u + r) * SLICE + c]);
        if (METRIC == DOT) {
          sums[r] = fma(left, right, sums[r]);
        } else if (METRIC == EUCLIDEAN) {
          sums[r] = fma(left - right, left - right, sums[r]);
        } else {
          sums[r] += abs(left - right);
        }
      }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < 4u; r++) {
    let m = group.y * 32u + local.y * 4u + r;
    for (var i = 0u; i < 4u; i++) {
      let n = group.x * 32u + local.x * 4u + i;
      if (m < p.M && n < p.N) { out[m * p.N + n] = select(sums[r][i], sqrt(sums[r][i]), METRIC == EUCLIDEAN); }
    }
  }
}
