// linear_dweight.wgsl where K or N is not a multiple of four; t ascends, too.
// Grid: a thread per element of a part, x over columns n, y over rows k and z over parts. Declared in train/sums.py.
struct Params { T: u32, K: u32, N: u32, P: u32 }
const TILE_K: u32 = 1u; // see scalar_matmul.wgsl
const TILE_N: u32 = 64u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dout: array<f32>;
@group(0) @binding(3) var<storage, read_write> parts: array<f32>;

@compute @workgroup_size(TILE_N)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.N || id.y >= p.K) { return; }
  let first = id.z * part_length();
  let end = min(first + part_length(), p.T);
  var sum = 0.0;
  for (var t = first; t < end; t++) { sum = fma(x[t * p.K + id.y], dout[t * p.N + id.x], sum); }
  parts[(id.z * p.K + id.y) * p.N + id.x] = sum;
}
