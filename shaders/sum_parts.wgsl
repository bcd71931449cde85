// The sum of the parts of a weight's gradient, in their order; parts past the last token are not read.
// Grid: a thread per element, x over columns n and y over rows k. Declared in train/sums.py.
struct Params { P: u32, K: u32, N: u32, T: u32, onto: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<f32>;
@group(0) @binding(2) var<storage, read_write> dweight: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.N) { return; }
  let at = id.y * p.N + id.x;
  let count = part_count();
  var sum = parts[at];
  for (var part = 1u; part < count; part++) { sum += parts[part * p.K * p.N + at]; }
  if (p.onto == 1u) { dweight[at] += sum; } else { dweight[at] = sum; }
}
