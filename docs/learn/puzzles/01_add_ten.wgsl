// op: add_ten
// Puzzle 1: add ten. out = x + 10, for T rows of C columns; here C is a multiple of 64.
//
// A kernel is written for one thread, and one thread computes one element. Threads come in workgroups of 64, one for
// each 64 columns of a row: group.x says which 64 columns, group.y which row, and lane, 0 to 63, which of the 64. The
// rows of a matrix lie in memory one after the other, so row r begins at element r * C.
//
// TODO: every workgroup below takes the first 64 columns of the first row, and adds nothing.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let at = lane;
  out[at] = x[at];
}
