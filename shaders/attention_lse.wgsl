// log(sum(exp(scores))) of every query and head, online, with tiles and blocks as in softmax_attention.wgsl.
// Grid: a workgroup per tile of the work list and head, a thread per query. Declared in train/ops.py.
struct Params { T: u32, N: u32, B: u32, G: u32, H: u32, scale: f32 }
const HEAD_SIZE: u32 = 64u;
const CAUSAL: u32 = 1u;
const WINDOW: u32 = 0u;
const KV_HEADS: u32 = 0u;
const QUERIES: u32 = 32u;
const KEYS: u32 = 16u; // keys in a block
const D4: u32 = (HEAD_SIZE + 3u) / 4u; // groups of four in a head's row, the last one padded with zeros
const LOWEST: f32 = -2.0e38; // below every score; finite after exp2's factor of 1.44
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> tiles: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

var<workgroup> keys: array<vec4<f32>, KEYS * D4>;

@compute @workgroup_size(QUERIES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = tiles[group.x];
  let start = spans[tile.x].x;
  let end = spans[tile.x].y;
  let head = group.y * HEAD_SIZE;
  let width = p.H * HEAD_SIZE;
  let key_head = width + group.y / sharing(width) * HEAD_SIZE;
  let query = start + tile.y + lane;
  let t = min(query, end - 1u); // queries past the end repeat the last one and are not stored
  var q: array<vec4<f32>, D4>;
  for (var d = 0u; d < D4; d++) { q[d] = load(t, head, d) * p.scale; }
  let keys_from = first_key(t, start);
  let keys_seen = past_key(t, end);
  let last_key = past_key(min(start + tile.y + QUERIES, end) - 1u, end);
  var largest = LOWEST;
  var total = 0.0;
  for (var block = first_key(start + tile.y, start); block < last_key; block += KEYS) {
    for (var i = lane; i < KEYS * D4; i += QUERIES) { keys[i] = load(min(block + i / D4, end - 1u), key_head, i % D4); }
    workgroupBarrier();
    for (var j = 0u; j < KEYS && block + j < keys_seen; j++) {
      if (WINDOW > 0u && block + j < keys_from) { continue; }
      var s = vec4<f32>(0.0, 0.0, 0.0, 0.0);
      for (var d = 0u; d < D4; d++) { s = fma(q[d], keys[j * D4 + d], s); }
      let score = (s.x + s.y) + (s.z + s.w);
      let top = max(largest, score);
      total = fma(total, exp(largest - top), exp(score - top));
      largest = top;
    }
    workgroupBarrier();
  }
  if (query < end) { lse[t * p.H + group.y] = largest + log(total); }
}
