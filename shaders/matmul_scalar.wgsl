// matmul.wgsl where K or N is not a multiple of four; k ascends as in the other kernels.
// Grid: a thread per element, x over columns and y over tokens. Declared in train/ops.py.
struct Params { T: u32, K: u32, N: u32 }
const TILE_T: u32 = 8u;
const TILE_N: u32 = 8u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(TILE_N, TILE_T)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.N || id.y >= p.T) { return; }
  var sum = 0.0;
  for (var k = 0u; k < p.K; k++) { sum = fma(x[id.y * p.K + k], weight[k * p.N + id.x], sum); }
  out[id.y * p.N + id.x] = sum;
}
