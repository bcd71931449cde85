// What pulls each point of a map towards its neighbours: the sum over its edges.
// Grid: a workgroup of POINTS threads per POINTS points, a thread each. Declared in graph/ops/layout_forces.py.
struct Params { N: u32, E: u32 }
const POINTS: u32 = 128u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> points: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> targets: array<u32>;
@group(0) @binding(4) var<storage, read> strengths: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(POINTS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = group.x * POINTS + thread;
  if (i >= p.N) { return; }
  let own = points[i].xyz;
  let end = min(spans[i].y, p.E);
  var sum = vec3<f32>();
  for (var e = spans[i].x; e < end; e++) {
    let apart = points[min(targets[e], p.N - 1u)].xyz - own;
    sum += apart * (strengths[e] / (1.0 + dot(apart, apart)));
  }
  out[i] = vec4<f32>(sum, 0.0);
}
