// op: shared_matmul
// Puzzle 11: a tile in workgroup memory. out = x @ weight, as in puzzle 10; a workgroup of 16 x 16 threads has a tile
// of 16 x 16 elements, one a thread.
//
// Threads of one row need the same numbers of x, those of one column the same numbers of weight. So the workgroup
// stages slices of both, 16 k at a time: each thread loads one number of each, all wait, and each multiplies 16 pairs
// from workgroup memory. Each number is loaded once for 16 threads that use it.
//
// TODO: two things. K is no multiple of 16 in one of the cases, and what lies past a matrix must count as 0. And a
// thread may stage the next slice while another one still multiplies this one.
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
    left[lane.y][lane.x] = x[row * p.K + k0 + lane.x];
    right[lane.y][lane.x] = weight[(k0 + lane.y) * p.N + column];
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) { sum += left[lane.y][k] * right[k][lane.x]; }
  }
  if (row < p.T && column < p.N) { out[row * p.N + column] = sum; }
}
