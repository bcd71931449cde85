// op: unpack_int8
// The byte goes to the highest 8 bits, and from there down again, with its sign.
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
  let byte = bitcast<i32>(word << (24u - 8u * (at % 4u))) >> 24u;
  out[at] = f32(byte) * scale[group.y * p.J + c / 64u];
}
