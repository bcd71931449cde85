// What pushes each point of a map away from all others, and the sum of the kernels 1 / (1 + distance²).
// Grid: a workgroup of POINTS threads per POINTS points, a thread each. Declared in graph/ops/layout_forces.py.
//
// All points pass through workgroup memory, POINTS at a time. Each of these blocks has a sum of its own, so that small terms are
// not lost in a sum over a hundred thousand. A place past the end counts for nothing.
struct Params { N: u32 }
const POINTS: u32 = 128u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> points: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> block: array<vec4<f32>, POINTS>;

@compute @workgroup_size(POINTS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = group.x * POINTS + thread;
  let own = points[min(i, p.N - 1u)].xyz;
  var total = vec4<f32>();
  for (var start = 0u; start < p.N; start += POINTS) {
    let j = start + thread;
    block[thread] = vec4<f32>(points[min(j, p.N - 1u)].xyz, select(0.0, 1.0, j < p.N));
    workgroupBarrier();
    var sum = vec4<f32>();
    for (var k = 0u; k < POINTS; k++) {
      let other = block[k];
      let apart = own - other.xyz;
      let kernel = other.w / (1.0 + dot(apart, apart));
      sum += vec4<f32>(apart * (kernel * kernel), kernel);
    }
    total += sum;
    workgroupBarrier();
  }
  if (i < p.N) { out[i] = total; }
}
