// op: add_bias
// The guard compares with the size in p: arrayLength() counts what the buffer has, which may be more than the data.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * 64u + lane;
  if (c >= p.C) { return; }
  let at = group.y * p.C + c;
  out[at] = x[at] + bias[c];
}
