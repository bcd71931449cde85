// How fast this device's matrix units multiply and add: fragments in registers, the ceiling of matmuls in f16.
// Grid: as many workgroups as keep the device busy. Dispatched by gpu/ceilings.py.
struct Params { rounds: u32 }
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
const FRAGMENT: u32 = 16u;
const PRODUCTS: u32 = 8u; // products of fragments that a subgroup computes in a round
const AREA: u32 = FRAGMENT * FRAGMENT;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // the number of subgroups; from AREA on, the sums

var<workgroup> operands: array<f16, 6u * AREA>;

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32) {
  for (var i = lane; i < 6u * AREA; i += 128u) { operands[i] = f16(f32(i % 7u) / 8.0 - f32(i / AREA) / 16.0); }
  if (lane == 0u) { out[0] = f32(subgroups); }
  workgroupBarrier();
  let a0 = coopLoadT<Left>(&operands[0], FRAGMENT);
  let a1 = coopLoadT<Left>(&operands[AREA], FRAGMENT);
  let b0 = coopLoadT<Right>(&operands[2u * AREA], FRAGMENT);
  let b1 = coopLoadT<Right>(&operands[3u * AREA], FRAGMENT);
  let b2 = coopLoadT<Right>(&operands[4u * AREA], FRAGMENT);
  let b3 = coopLoadT<Right>(&operands[5u * AREA], FRAGMENT);
  var c00 = Sum(); var c01 = Sum(); var c02 = Sum(); var c03 = Sum();
  var c10 = Sum(); var c11 = Sum(); var c12 = Sum(); var c13 = Sum();
  for (var i = 0u; i < p.rounds; i++) {
    c00 = coopMultiplyAdd(a0, b0, c00);
    c01 = coopMultiplyAdd(a0, b1, c01);
    c02 = coopMultiplyAdd(a0, b2, c02);
    c03 = coopMultiplyAdd(a0, b3, c03);
    c10 = coopMultiplyAdd(a1, b0, c10);
    c11 = coopMultiplyAdd(a1, b1, c11);
    c12 = coopMultiplyAdd(a1, b2, c12);
    c13 = coopMultiplyAdd(a1, b3, c13);
  }
  let at0 = AREA * (1u + PRODUCTS * subgroup);
  let at1 = at0 + AREA;
  let at2 = at1 + AREA;
  let at3 = at2 + AREA;
  let at4 = at3 + AREA;
  let at5 = at4 + AREA;
  let at6 = at5 + AREA;
  let at7 = at6 + AREA;
  coopStoreT(c00, &out[at0], FRAGMENT);
  coopStoreT(c01, &out[at1], FRAGMENT);
  coopStoreT(c02, &out[at2], FRAGMENT);
  coopStoreT(c03, &out[at3], FRAGMENT);
  coopStoreT(c10, &out[at4], FRAGMENT);
  coopStoreT(c11, &out[at5], FRAGMENT);
  coopStoreT(c12, &out[at6], FRAGMENT);
  coopStoreT(c13, &out[at7], FRAGMENT);
}
