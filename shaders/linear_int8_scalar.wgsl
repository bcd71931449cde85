// linear_int8.wgsl where K or N is not a multiple of four; k ascends as in the other kernels.
// Grid: a thread per element, x over columns and y over tokens. Declared in graph/ops/linear_layers.py.
struct Params { T: u32, K: u32, N: u32, J: u32 }
alias X = f32;
alias O = f32;
const TILE_T: u32 = 8u;
const TILE_N: u32 = 8u;
const GROUP: u32 = 64u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read> weight: array<u32>;
@group(0) @binding(3) var<storage, read> scale: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<O>;

@compute @workgroup_size(TILE_N, TILE_T)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.N || id.y >= p.T) { return; }
  var sum = 0.0;
  for (var k = 0u; k < p.K; k++) {
    let at = k * p.N + id.x;
    let q = f32(extractBits(i32(weight[at / 4u]), at % 4u * 8u, 8u));
    sum = fma(f32(x[id.y * p.K + k]), q * scale[k / GROUP * p.N + id.x], sum);
  }
  out[id.y * p.N + id.x] = O(activate(sum + bias[id.x]));
}
