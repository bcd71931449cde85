// op: add_bias
// Puzzle 2: the guard. out = x + bias, for T rows of C columns, where C may be anything. All rows get the same bias.
//
// A grid is made of whole workgroups. Where C is 70, a row gets two of them, 128 threads, and 58 have no column. Such a
// thread must not write: its element would be one of the next row, or past the end.
//
// TODO: add the bias, and let threads without a column do nothing.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * 64u + lane;
  let at = group.y * p.C + c;
  out[at] = x[at];
}
