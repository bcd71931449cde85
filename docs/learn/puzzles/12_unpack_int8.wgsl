// op: unpack_int8
// Puzzle 12: int8. A table of V rows and C columns is stored as q * scale: q from -127 to 127, one scale for each 64
// columns of a row (J in all, the last one for what is left). out is the table in f32.
//
// WGSL has no 8-bit integers, so four q lie in each u32: element e of the table is the byte e % 4 of the word e / 4,
// where byte 0 has the lowest 8 bits. Rows lie end to end, so where C is 70 a word may hold the end of one row and the
// begin of the next.
//
// TODO: the bytes below are read without their sign, and all with the first scale of their row. A right shift of an i32
// keeps its sign.
struct Params { V: u32, C: u32, J: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<u32>;
@group(0) @binding(2) var<storage, read> scale: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * 64u + lane;
  if (c >= p.C) { return; }
  let at = group.y * p.C + c;
  let word = q[at / 4u];
  let byte = (word >> (8u * (at % 4u))) & 0xffu;
  out[at] = f32(byte) * scale[group.y * p.J];
}
