// embed.wgsl with the token table in int8, and a scale for each GROUP columns of a row.
// A table larger than a binding comes in pieces of V rows, starting with row `first`, one dispatch each; the scales are not cut.
// Grid: a thread per element, x over columns and y over tokens. Declared in graph/ops/embedding.py.
struct Params { T: u32, V: u32, C: u32, J: u32, S: u32, first: u32 }
alias W = f32;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> wte: array<u32>;
@group(0) @binding(4) var<storage, read> scale: array<f32>;
@group(0) @binding(5) var<storage, read> wpe: array<W>;
@group(0) @binding(6) var<storage, read_write> out: array<f32>;

const GROUP: u32 = 64u;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  let t = id.y;
  if (c >= p.C) { return; }
  let row = ids[t] - p.first; // wraps around for ids below `first`, so they are skipped too
  if (row >= p.V) { return; }
  let at = row * p.C + c;
  let q = f32(extractBits(i32(wte[at / 4u]), at % 4u * 8u, 8u));
  out[t * p.C + c] = q * scale[ids[t] * p.J + c / GROUP] + f32(wpe[positions[t] * p.C + c]);
}
