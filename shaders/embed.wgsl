// A row of the token table plus a row of the position table.
// A token table larger than a binding comes in pieces of V rows, starting with row `first`, one dispatch each.
// Grid: a thread per element, x over columns and y over tokens. Declared in graph/ops/embedding.py.
struct Params { T: u32, V: u32, C: u32, S: u32, first: u32 }
alias W = f32;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> positions: array<u32>;
@group(0) @binding(3) var<storage, read> wte: array<W>;
@group(0) @binding(4) var<storage, read> wpe: array<W>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  let t = id.y;
  if (c >= p.C) { return; }
  let row = ids[t] - p.first; // wraps around for ids below `first`, so they are skipped too
  if (row >= p.V) { return; }
  out[t * p.C + c] = f32(wte[row * p.C + c]) + f32(wpe[positions[t] * p.C + c]);
}
