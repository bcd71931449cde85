// op: mean_pool
// Puzzle 4: mean pooling. Many texts lie in x end to end, T tokens in all. Text b has the rows spans[b].x to spans[b].y
// - 1, and out, B rows of C columns, has the mean of each text's rows.
//
// One thread computes one element, column c of text group.y, in a loop over the text's tokens. So neighbouring threads
// read neighbouring numbers in each round, which memory serves in one go.
//
// TODO: the loop below takes all T rows, and divides by T.
struct Params { T: u32, C: u32, B: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * 64u + lane;
  if (c >= p.C) { return; }
  var sum = 0.0;
  for (var t = 0u; t < p.T; t++) { sum += x[t * p.C + c]; }
  out[group.y * p.C + c] = sum / f32(p.T);
}
