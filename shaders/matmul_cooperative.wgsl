// x @ weight on matrix units: f16 fragments of FRAGMENT x FRAGMENT, f32 accumulation.
// Grid: a workgroup per TILE_T x TILE_N outputs; each of its first PARTS subgroups computes THREAD_ROWS x THREAD_ROWS of them.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
//
// k ascends, so every tile shape gives the same bits. Slices of both matrices are staged in workgroup memory, and the next slice
// is loaded into registers while one is multiplied. A shader cannot address the elements of a fragment, so results pass through
// workgroup memory to `finish`. No subgroup arithmetic: some drivers crash where it meets matrix units. Rows in workgroup memory
// are multiples of 16 bytes long. gpu/tiles.py sets the tile; its default is that of the fastest public kernel (cmf's zi_mm).
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
const FRAGMENT: u32 = 16u;
const TILE_T: u32 = 128u;
const TILE_N: u32 = 128u;
const THREAD_ROWS: u32 = 64u; // rows and columns per subgroup
const SUBGROUP: u32 = 32u; // lanes
const LARGE: bool = THREAD_ROWS == 4u * FRAGMENT; // 4 x 4 fragments
const PARTS_N: u32 = TILE_N / THREAD_ROWS;
const PARTS: u32 = TILE_T / THREAD_ROWS * PARTS_N;
const LANES: u32 = PARTS * SUBGROUP;
const SLICE: u32 = 32u; // k staged at a time
const X_PITCH: u32 = SLICE + 8u; // rows are padded by 8 halves, so that fragments are read without bank conflicts
const WEIGHT_PITCH: u32 = TILE_N + 8u;
const X_GROUPS: u32 = SLICE / 4u; // groups of four in a row of a slice; they divide LANES
const WEIGHT_GROUPS: u32 = TILE_N / 4u;
const X_LOADS: u32 = TILE_T * X_GROUPS / LANES; // groups of four that a lane loads
const WEIGHT_LOADS: u32 = SLICE * WEIGHT_GROUPS / LANES;
const STRIP: u32 = 2u * FRAGMENT; // columns of results that a subgroup hands to `finish` at a time, in FRAGMENT rows

var<workgroup> x_slice: array<f16, TILE_T * X_PITCH>;
var<workgroup> weight_slice: array<f16, SLICE * WEIGHT_PITCH>;
var<workgroup> results: array<f32, PARTS * FRAGMENT * STRIP>;

// The i-th group of four elements that a lane loads of a slice from k on; zeros outside the matrix, as these are multiplied too.
// What i adds to an address is the same for all lanes, so a lane holds one address and not one for each i.
fn load_x(t0: u32, k: u32, lane: u32, i: u32) -> vec4<f16> {
  let t = t0 + lane / X_GROUPS;
  let k4 = lane % X_GROUPS;
  let below = i * (LANES / X_GROUPS);
  var v = vec4<f16>();
  if (t + below < p.T && k4 + k / 4u < p.K / 4u) { v = vec4<f16>(x[t * (p.K / 4u) + k4 + (below * (p.K / 4u) + k / 4u)]); }
  return v;
}

fn load_weight(n0: u32, k: u32, lane: u32, i: u32) -> vec4<f16> {
  let row = lane / WEIGHT_GROUPS + (k + i * (LANES / WEIGHT_GROUPS));
  let n4 = n0 / 4u + lane % WEIGHT_GROUPS;
  var v = vec4<f16>();
  if (row < p.K && n4 < p.N / 4u) { v = vec4<f16>(columns(row, n4)); }
  return v;
}

fn stage_x(i: u32, v: vec4<f16>) {
  let at = i / X_GROUPS * X_PITCH + i % X_GROUPS * 4u;
  x_slice[at] = v.x;
  x_slice[at + 1u] = v.y;
  x_slice[at + 2u] = v.z;
  x_slice[at + 3u] = v.w;
}

fn stage_weight(i: u32, v: vec4<f16>) {
  let at = i / WEIGHT_GROUPS * WEIGHT_PITCH + i % WEIGHT_GROUPS * 4u;
  weight_slice[at] = v.x;
  weight_slice[at + 1u] = v.y;
  weight_slice[at + 2u] = v.z;
  weight_slice[at + 3u] = v.w;
}

// Stores the strips of all subgroups, which begin at `row` and `column` of their parts.
fn finish_strips(t0: u32, n0: u32, row: u32, column: u32, lane: u32, subgroups: u32) {
  workgroupBarrier();
  for (var i = lane; i < PARTS * FRAGMENT * STRIP / 4u; i += LANES) {
    let part = i / (FRAGMENT * STRIP / 4u);
    let t = t0 + part / PARTS_N * THREAD_ROWS + row + i / (STRIP / 4u) % FRAGMENT;
    let n = n0 + part % PARTS_N * THREAD_ROWS + column + i % (STRIP / 4u) * 4u;
    var v = vec4(results[4u * i], results[4u * i + 1u], results[4u * i + 2u], results[4u * i + 3u]);
    if (subgroups < PARTS) { v = vec4(bitcast<f32>(p.K | 0x7fc00000u)); } // subgroups are wider than SUBGROUP: give NaN rather than leave a part out
    finish(t, n / 4u, v);
  }
  workgroupBarrier();
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32) {
  let t0 = group.y * TILE_T;
  let n0 = group.x * TILE_N;
  let part = subgroup % PARTS; // surplus subgroups repeat the work: matrix units need uniform control flow
  let row = part / PARTS_N * THREAD_ROWS;
  let column = part % PARTS_N * THREAD_ROWS;
  let strip = part * FRAGMENT * STRIP;
  let beside = strip + FRAGMENT;
  var c00 = Sum(); var c01 = Sum(); var c02 = Sum(); var c03 = Sum();
  var c10 = Sum(); var c11 = Sum(); var c12 = Sum(); var c13 = Sum();
  var c20 = Sum(); var c21 = Sum(); var c22 = Sum(); var c23 = Sum();
  var c30 = Sum(); var c31 = Sum(); var c32 = Sum(); var c33 = Sum();
  var next_x: array<vec4<f16>, X_LOADS>;
  var next_weight: array<vec4<f16>, WEIGHT_LOADS>;
  for (var i = 0u; i < X_LOADS; i++) { next_x[i] = load_x(t0, 0u, lane, i); }
  for (var i = 0u; i < WEIGHT_LOADS; i++) { next_weight[i] = load_weight(n0, 0u, lane, i); }

  for (var k = 0u; k < p.K; k += SLICE) {
    for (var i = 0u; i < X_LOADS; i++) { stage_x(lane + i * LANES, next_x[i]); }
    for (var i = 0u; i < WEIGHT_LOADS; i++) { stage_weight(lane + i * LANES, next_weight[i]); }
    workgroupBarrier();
    for (var i = 0u; i < X_LOADS; i++) { next_x[i] = load_x(t0, k + SLICE, lane, i); }
    for (var i = 0u; i < WEIGHT_LOADS; i++) { next_weight[i] = load_weight(n0, k + SLICE, lane, i); }
    for (var j = 0u; j < SLICE; j += FRAGMENT) { // each fragment of weights is loaded just before its products, as registers are few
      let a0 = coopLoadT<Left>(&x_slice[row * X_PITCH + j], X_PITCH);
      let a1 = coopLoadT<Left>(&x_slice[(row + FRAGMENT) * X_PITCH + j], X_PITCH);
      let b0 = coopLoadT<Right>(&weight_slice[j * WEIGHT_PITCH + column], WEIGHT_PITCH);
      c00 = coopMultiplyAdd(a0, b0, c00);
      c10 = coopMultiplyAdd(a1, b0, c10);
      let b1 = coopLoadT<Right>(&weight_slice[j * WEIGHT_PITCH + column + FRAGMENT], WEIGHT_PITCH);
      c01 = coopMultiplyAdd(a0, b1, c01);
      c11 = coopMultiplyAdd(a1, b1, c11);
      if (LARGE) {
        let a2 = coopLoadT<Left>(&x_slice[(row + 2u * FRAGMENT) * X_PITCH + j], X_PITCH);
        let a3 = coopLoadT<Left>(&x_slice[(row + 3u * FRAGMENT) * X_PITCH + j], X_PITCH);
        c20 = coopMultiplyAdd(a2, b0, c20);
        c30 = coopMultiplyAdd(a3, b0, c30);
        c21 = coopMultiplyAdd(a2, b1, c21);
        c31 = coopMultiplyAdd(a3, b1, c31);
        let b2 = coopLoadT<Right>(&weight_slice[j * WEIGHT_PITCH + column + 2u * FRAGMENT], WEIGHT_PITCH);
        c02 = coopMultiplyAdd(a0, b2, c02);
        c12 = coopMultiplyAdd(a1, b2, c12);
        c22 = coopMultiplyAdd(a2, b2, c22);
        c32 = coopMultiplyAdd(a3, b2, c32);
        let b3 = coopLoadT<Right>(&weight_slice[j * WEIGHT_PITCH + column + 3u * FRAGMENT], WEIGHT_PITCH);
        c03 = coopMultiplyAdd(a0, b3, c03);
        c13 = coopMultiplyAdd(a1, b3, c13);
        c23 = coopMultiplyAdd(a2, b3, c23);
        c33 = coopMultiplyAdd(a3, b3, c33);
      }
    }
    workgroupBarrier();
  }

  coopStoreT(c00, &results[strip], STRIP); coopStoreT(c01, &results[beside], STRIP);
  finish_strips(t0, n0, 0u, 0u, lane, subgroups);
  coopStoreT(c10, &results[strip], STRIP); coopStoreT(c11, &results[beside], STRIP);
  finish_strips(t0, n0, FRAGMENT, 0u, lane, subgroups);
  if (LARGE) {
    coopStoreT(c02, &results[strip], STRIP); coopStoreT(c03, &results[beside], STRIP);
    finish_strips(t0, n0, 0u, STRIP, lane, subgroups);
    coopStoreT(c12, &results[strip], STRIP); coopStoreT(c13, &results[beside], STRIP);
    finish_strips(t0, n0, FRAGMENT, STRIP, lane, subgroups);
    coopStoreT(c20, &results[strip], STRIP); coopStoreT(c21, &results[beside], STRIP);
    finish_strips(t0, n0, 2u * FRAGMENT, 0u, lane, subgroups);
    coopStoreT(c22, &results[strip], STRIP); coopStoreT(c23, &results[beside], STRIP);
    finish_strips(t0, n0, 2u * FRAGMENT, STRIP, lane, subgroups);
    coopStoreT(c30, &results[strip], STRIP); coopStoreT(c31, &results[beside], STRIP);
    finish_strips(t0, n0, 3u * FRAGMENT, 0u, lane, subgroups);
    coopStoreT(c32, &results[strip], STRIP); coopStoreT(c33, &results[beside], STRIP);
    finish_strips(t0, n0, 3u * FRAGMENT, STRIP, lane, subgroups);
  }
}
