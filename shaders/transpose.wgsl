// The transpose of a matrix. A thread turns 4 x 4 elements in registers. Eight neighbouring threads write 32 neighbouring
// elements, and eight that lie eight apart read as many, so both go to memory in whole lines.
// Grid: a workgroup of 64 threads per TILE x TILE elements. Declared in train/ops.py.
struct Params { K: u32, N: u32 }
const TILE: u32 = 32u;
const FOURS: u32 = TILE / 4u;
const THREADS: u32 = FOURS * FOURS;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let k4s = p.K / 4u;
  let n4s = p.N / 4u;
  let k = group.y * FOURS + lane % FOURS;
  let n = group.x * FOURS + lane / FOURS;
  if (k >= k4s || n >= n4s) { return; }
  let a = x[(4u * k) * n4s + n];
  let b = x[(4u * k + 1u) * n4s + n];
  let c = x[(4u * k + 2u) * n4s + n];
  let d = x[(4u * k + 3u) * n4s + n];
  out[(4u * n) * k4s + k] = vec4(a.x, b.x, c.x, d.x);
  out[(4u * n + 1u) * k4s + k] = vec4(a.y, b.y, c.y, d.y);
  out[(4u * n + 2u) * k4s + k] = vec4(a.z, b.z, c.z, d.z);
  out[(4u * n + 3u) * k4s + k] = vec4(a.w, b.w, c.w, d.w);
}
