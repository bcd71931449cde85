// op: add_ten
// Where a thread's element lies: the rows before it, the workgroups before it in its row, the lanes before it.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let at = group.y * p.C + group.x * 64u + lane;
  out[at] = x[at] + 10.0;
}
