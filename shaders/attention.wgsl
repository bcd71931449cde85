// Softmax attention over packed sequences, online (Milakov & Gimelshein 2018): no T x T scores in memory.
// A workgroup takes one tile of the work list and one head; a thread takes one query, its row of q and of the result in
// registers. Keys and values come in blocks through workgroup memory. Blocks count from the start of the sequence, so a
// text's bits do not depend on what else is in the batch.
struct Params { T: u32, C: u32, B: u32, G: u32, scale: f32 }
alias A = f32;
alias O = f32;
const HEAD_SIZE: u32 = 64u;
const CAUSAL: u32 = 1u;
const QUERIES: u32 = 32u;
const KEYS: u32 = 16u;
const D4: u32 = (HEAD_SIZE + 3u) / 4u; // a head's row in groups of four, the last one filled up with zeros
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<A>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> tiles: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<O>;

var<workgroup> keys: array<vec4<f32>, KEYS * D4>;
var<workgroup> values: array<vec4<f32>, KEYS * D4>;

// four elements of one head's row of q, k or v, from `column` on
fn load(t: u32, column: u32, d4: u32) -> vec4<f32> {
  var v = vec4<f32>();
  let at = t * 3u * p.C + column + d4 * 4u;
  for (var i = 0u; i < 4u; i++) {
    if (d4 * 4u + i < HEAD_SIZE) { v[i] = f32(qkv[at + i]); }
  }
  return v;
}

@compute @workgroup_size(QUERIES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = tiles[group.x];
  let start = spans[tile.x].x;
  let end = spans[tile.x].y;
  let head = group.y * HEAD_SIZE;
  let t = min(start + tile.y + lane, end - 1u); // lanes past the end repeat the last query and store nothing

  var q: array<vec4<f32>, D4>;
  var sum: array<vec4<f32>, D4>;
  for (var d = 0u; d < D4; d++) { q[d] = load(t, head, d) * p.scale; }
  var largest = -3.0e38;
  var total = 0.0;

  let last_key = select(end, min(start + tile.y + QUERIES, end), CAUSAL == 1u);
  let keys_seen = select(end, t + 1u, CAUSAL == 1u);
  for (var block = start; block < last_key; block += KEYS) {
    for (var i = lane; i < KEYS * D4; i += QUERIES) {
      let key = min(block + i / D4, end - 1u);
      keys[i] = load(key, p.C + head, i % D4);
      values[i] = load(key, 2u * p.C + head, i % D4);
    }
    workgroupBarrier();

    var scores: array<f32, KEYS>;
    var top = largest;
    for (var j = 0u; j < KEYS; j++) {
      var s = vec4<f32>();
      for (var d = 0u; d < D4; d++) { s = fma(q[d], keys[j * D4 + d], s); }
      scores[j] = select(-3.0e38, (s.x + s.y) + (s.z + s.w), block + j < keys_seen);
      top = max(top, scores[j]);
    }
    let fade = exp(largest - top);
    largest = top;
    total *= fade;
    for (var d = 0u; d < D4; d++) { sum[d] *= fade; }
    for (var j = 0u; j < KEYS; j++) {
      let weight = select(0.0, exp(scores[j] - top), block + j < keys_seen);
      total += weight;
      for (var d = 0u; d < D4; d++) { sum[d] = fma(vec4<f32>(weight), values[j * D4 + d], sum[d]); }
    }
    workgroupBarrier();
  }

  if (start + tile.y + lane >= end) { return; }
  for (var d = 0u; d < HEAD_SIZE; d++) { out[t * p.C + head + d] = O(sum[d / 4u][d % 4u] / total); }
}
