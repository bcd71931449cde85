// Zero where the hash of (seed, site, token, column) is below the threshold, else scale * x.
// The hash is "lowbias32" (Wellons 2018) on u32, so the masks are those of numpy, bit for bit.
// Grid: a thread per element, x over columns and y over tokens. Declared in train/ops.py.
struct Params { T: u32, C: u32, threshold: u32, scale: f32, site: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> tokens: array<u32>;
@group(0) @binding(3) var<storage, read> seed: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

fn scramble(v: u32) -> u32 {
  var h = v ^ (v >> 16u);
  h *= 0x7feb352du;
  h ^= h >> 15u;
  h *= 0x846ca68bu;
  return h ^ (h >> 16u);
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.C) { return; }
  let at = id.y * p.C + id.x;
  let row = scramble(scramble(tokens[id.y] ^ scramble(seed[0])) + p.site);
  let keep = scramble(row ^ (id.x * 0x9e3779b9u)) >= p.threshold;
  out[at] = select(0.0, x[at] * p.scale, keep);
}
