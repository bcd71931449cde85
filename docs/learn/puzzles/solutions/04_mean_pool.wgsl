// op: mean_pool
// Packed texts need no padding: a span says where each begins and ends.
struct Params { T: u32, C: u32, B: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * 64u + lane;
  if (c >= p.C) { return; }
  let span = spans[group.y];
  var sum = 0.0;
  for (var t = span.x; t < span.y; t++) { sum += x[t * p.C + c]; }
  out[group.y * p.C + c] = sum / f32(span.y - span.x);
}
