// op: shared_matmul
// The guards choose what is loaded, not who comes to the barrier: threads outside of the matrix help to stage it.
struct Params { T: u32, K: u32, N: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<workgroup> left: array<array<f32, 16>, 16>;
var<workgroup> right: array<array<f32, 16>, 16>;

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
  let row = group.y * 16u + lane.y;
  let column = group.x * 16u + lane.x;
  var sum = 0.0;
  for (var k0 = 0u; k0 < p.K; k0 += 16u) {
    var a = 0.0;
    var b = 0.0;
    if (row < p.T && k0 + lane.x < p.K) { a = x[row * p.K + k0 + lane.x]; }
    if (column < p.N && k0 + lane.y < p.K) { b = weight[(k0 + lane.y) * p.N + column]; }
    left[lane.y][lane.x] = a;
    right[lane.y][lane.x] = b;
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) { sum += left[lane.y][k] * right[k][lane.x]; }
    workgroupBarrier();
  }
  if (row < p.T && column < p.N) { out[row * p.N + column] = sum; }
}
