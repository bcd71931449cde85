// x @ weight on matrix units: 16 x 16 fragments, f16 operands, f32 accumulation. A workgroup of four subgroups computes
// 64 x 64 outputs, a subgroup 32 x 32 as 2 x 2 fragments; slices of 32 k of both matrices are staged in workgroup memory,
// rows padded by 8 halves so that fragments are read without bank conflicts. Fragments have no elements to get at, so
// the results pass through workgroup memory to `finish`. No subgroup arithmetic here: some drivers crash on the two together.
const TILE_T: u32 = 64u;
const TILE_N: u32 = 64u;
const SLICE: u32 = 32u;
const X_PITCH: u32 = 40u;
const WEIGHT_PITCH: u32 = 72u;
const LANES: u32 = 128u;

var<workgroup> x_slice: array<f16, TILE_T * X_PITCH>;
var<workgroup> weight_slice: array<f16, SLICE * WEIGHT_PITCH>;
var<workgroup> results: array<f32, TILE_T * TILE_N>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32) {
  let k4s = p.K / 4u;
  let n4s = p.N / 4u;
  let t0 = group.y * TILE_T;
  let n0 = group.x * (TILE_N / 4u);
  let row = (subgroup / 2u) * 32u;
  let column = (subgroup % 2u) * 32u;
  var c00 = coop_mat16x16<f32, C>();
  var c01 = coop_mat16x16<f32, C>();
  var c10 = coop_mat16x16<f32, C>();
  var c11 = coop_mat16x16<f32, C>();

  for (var k = 0u; k < p.K; k += SLICE) {
    for (var i = lane; i < TILE_T * SLICE / 4u; i += LANES) {
      let t = i / (SLICE / 4u);
      let k4 = i % (SLICE / 4u);
      var v = vec4<f16>();
      if (t0 + t < p.T && k / 4u + k4 < k4s) { v = vec4<f16>(x[(t0 + t) * k4s + k / 4u + k4]); }
      let at = t * X_PITCH + k4 * 4u;
      x_slice[at] = v.x;
      x_slice[at + 1u] = v.y;
      x_slice[at + 2u] = v.z;
      x_slice[at + 3u] = v.w;
    }
    for (var i = lane; i < SLICE * TILE_N / 4u; i += LANES) {
      let j = i / (TILE_N / 4u);
      let n4 = i % (TILE_N / 4u);
      var v = vec4<f16>();
      if (k + j < p.K && n0 + n4 < n4s) { v = vec4<f16>(weight[(k + j) * n4s + n0 + n4]); }
      let at = j * WEIGHT_PITCH + n4 * 4u;
      weight_slice[at] = v.x;
      weight_slice[at + 1u] = v.y;
      weight_slice[at + 2u] = v.z;
      weight_slice[at + 3u] = v.w;
    }
    workgroupBarrier();
    for (var j = 0u; j < SLICE; j += 16u) {
      let a0 = coopLoadT<coop_mat16x16<f16, A>>(&x_slice[row * X_PITCH + j], X_PITCH);
      let a1 = coopLoadT<coop_mat16x16<f16, A>>(&x_slice[(row + 16u) * X_PITCH + j], X_PITCH);
      let b0 = coopLoadT<coop_mat16x16<f16, B>>(&weight_slice[j * WEIGHT_PITCH + column], WEIGHT_PITCH);
      let b1 = coopLoadT<coop_mat16x16<f16, B>>(&weight_slice[j * WEIGHT_PITCH + column + 16u], WEIGHT_PITCH);
      c00 = coopMultiplyAdd(a0, b0, c00);
      c01 = coopMultiplyAdd(a0, b1, c01);
      c10 = coopMultiplyAdd(a1, b0, c10);
      c11 = coopMultiplyAdd(a1, b1, c11);
    }
    workgroupBarrier();
  }

  let at = row * TILE_N + column;
  let right = at + 16u;
  let below = at + 16u * TILE_N;
  let below_right = below + 16u;
  coopStoreT(c00, &results[at], TILE_N);
  coopStoreT(c01, &results[right], TILE_N);
  coopStoreT(c10, &results[below], TILE_N);
  coopStoreT(c11, &results[below_right], TILE_N);
  workgroupBarrier();
  for (var i = lane; i < TILE_T * TILE_N / 4u; i += LANES) {
    let v = vec4(results[4u * i], results[4u * i + 1u], results[4u * i + 2u], results[4u * i + 3u]);
    finish(t0 + i / (TILE_N / 4u), n0 + i % (TILE_N / 4u), v);
  }
}
