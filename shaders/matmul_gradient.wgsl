// The matmul of the backward pass: sums over k of left(m, k) right(k, n), k ascending, for any sizes. Its operands lie
// transposed in memory, so elements are loaded one by one: threads side by side load what is adjacent, along k or along
// m and n, and put it into workgroup memory as the threads that multiply want it. A workgroup of 8 x 8 threads computes
// TILE x TILE outputs, a thread 8 x 8: rows and columns y and x, y + 8 and x + 8, each a group of four.
const TILE: u32 = 64u;
const SLICE: u32 = 16u; // of k; also the groups of four in a tile
const PITCH: u32 = 17u; // rows start in different banks

var<workgroup> left_slice: array<vec4<f32>, SLICE * PITCH>;
var<workgroup> right_slice: array<vec4<f32>, SLICE * PITCH>;

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let m0 = group.y * TILE;
  let n0 = group.x * TILE;
  var near: array<vec4<f32>, 8>; // columns n0 + 4 x ...
  var far: array<vec4<f32>, 8>; // columns n0 + 4 (x + 8) ...
  for (var k0 = 0u; k0 < inner(); k0 += SLICE) {
    for (var i = lane; i < SLICE * SLICE; i += 64u) {
      let k = select(i / SLICE, i % SLICE, K_ADJACENT);
      let four = select(i % SLICE, i / SLICE, K_ADJACENT);
      let m = m0 + 4u * four;
      let n = n0 + 4u * four;
      let at = k * PITCH + four;
      left_slice[at] = vec4(left(m, k0 + k), left(m + 1u, k0 + k), left(m + 2u, k0 + k), left(m + 3u, k0 + k));
      right_slice[at] = vec4(right(k0 + k, n), right(k0 + k, n + 1u), right(k0 + k, n + 2u), right(k0 + k, n + 3u));
    }
    workgroupBarrier();
    for (var k = 0u; k < SLICE; k++) {
      let above = left_slice[k * PITCH + local.y];
      let below = left_slice[k * PITCH + local.y + 8u];
      let b_near = right_slice[k * PITCH + local.x];
      let b_far = right_slice[k * PITCH + local.x + 8u];
      for (var r = 0u; r < 4u; r++) {
        near[r] = fma(vec4<f32>(above[r]), b_near, near[r]);
        far[r] = fma(vec4<f32>(above[r]), b_far, far[r]);
        near[r + 4u] = fma(vec4<f32>(below[r]), b_near, near[r + 4u]);
        far[r + 4u] = fma(vec4<f32>(below[r]), b_far, far[r + 4u]);
      }
    }
    workgroupBarrier();
  }
  for (var r = 0u; r < 8u; r++) {
    let m = m0 + 4u * (local.y + 8u * (r / 4u)) + r % 4u;
    for (var i = 0u; i < 4u; i++) {
      store(m, n0 + 4u * local.x + i, near[r][i]);
      store(m, n0 + 4u * (local.x + 8u) + i, far[r][i]);
    }
  }
}
