// Softmax attention over packed sequences, online (Milakov & Gimelshein 2018): the n x n scores are never stored.
// Grid: a workgroup per tile of the work list and per head, a thread per EACH queries.
// Used by attention, attention_bias, which declare the bindings and `biased`, a score plus its bias.
//
// A thread holds its queries' rows of q and of the result in registers. Keys and values pass through workgroup memory in blocks;
// blocks that no query of the tile sees are skipped. Blocks count from the start of the sequence, so a text's bits do not depend
// on what else is in the batch.
const HEAD_SIZE: u32 = 64u;
const CAUSAL: u32 = 1u;
const QUERIES: u32 = 32u;
const EACH: u32 = 1u; // queries per thread, which share the keys and values that it loads
const LANES: u32 = QUERIES / EACH;
const KEYS: u32 = 16u; // keys in a block
const D4: u32 = (HEAD_SIZE + 3u) / 4u; // groups of four in a head's row, the last one padded with zeros
const HIDDEN: f32 = -2.0e38; // the score of a key that a query does not see; finite after exp2's factor of 1.44
const LOWEST: f32 = -1.0e38; // the initial maximum, above HIDDEN: so a hidden key's weight is 0 even before any key is seen

var<workgroup> keys: array<vec4<f32>, KEYS * D4>;
var<workgroup> values: array<vec4<f32>, KEYS * D4>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = tiles[group.x];
  let start = spans[tile.x].x;
  let end = spans[tile.x].y;
  let head = group.y * HEAD_SIZE;
  let key_head = p.C + group.y / sharing(p.C) * HEAD_SIZE;
  let value_head = key_head + (p.N - p.C) / 2u;
  let first = start + tile.y + lane;

  var q: array<vec4<f32>, EACH * D4>;
  var sum: array<vec4<f32>, EACH * D4>;
  var largest: array<f32, EACH>;
  var total: array<f32, EACH>;
  var keys_from: array<u32, EACH>;
  var keys_seen: array<u32, EACH>;
  for (var e = 0u; e < EACH; e++) {
    let t = min(first + e * LANES, end - 1u); // queries past the end repeat the last one and are not stored
    for (var d = 0u; d < D4; d++) { q[e * D4 + d] = load(t, head, d) * p.scale; }
    largest[e] = LOWEST;
    keys_from[e] = first_key(t, start);
    keys_seen[e] = past_key(t, end);
  }

  let last = min(start + tile.y + QUERIES, end) - 1u;
  let seen_by_all = past_key(start + tile.y, end); // keys before this one are seen by all queries: no mask
  let seen_from = first_key(last, start); // with a window, keys from this one on are seen by all
  let last_key = past_key(last, end);
  let first_block = first_key(start + tile.y, start);
  for (var block = first_block - (first_block - start) % KEYS; block < last_key; block += KEYS) {
    for (var i = lane; i < KEYS * D4; i += LANES) {
      let key = min(block + i / D4, end - 1u);
      keys[i] = load(key, key_head, i % D4);
      values[i] = load(key, value_head, i % D4);
    }
    workgroupBarrier();

    var scores: array<f32, EACH * KEYS>;
    for (var j = 0u; j < KEYS; j++) {
      var s = array<vec4<f32>, EACH>(); // explicit: naga 29 would zero a variable without a value only once, not in each round
      for (var d = 0u; d < D4; d++) {
        let k = keys[j * D4 + d];
        for (var e = 0u; e < EACH; e++) { s[e] = fma(q[e * D4 + d], k, s[e]); }
      }
      for (var e = 0u; e < EACH; e++) {
        scores[e * KEYS + j] = biased((s[e].x + s[e].y) + (s[e].z + s[e].w), group.y, first + e * LANES, block + j);
      }
    }
    if (block + KEYS > seen_by_all || (WINDOW > 0u && block < seen_from)) {
      for (var i = 0u; i < EACH * KEYS; i++) {
        let key = block + i % KEYS;
        let seen = (key < keys_seen[i / KEYS]) & ((WINDOW == 0u) | (key >= keys_from[i / KEYS]));
        scores[i] = select(HIDDEN, scores[i], seen);
      }
    }
    for (var e = 0u; e < EACH; e++) {
      var top = largest[e];
      for (var j = 0u; j < KEYS; j++) { top = max(top, scores[e * KEYS + j]); }
      let fade = exp(largest[e] - top);
      largest[e] = top;
      total[e] *= fade;
      for (var d = 0u; d < D4; d++) { sum[e * D4 + d] *= fade; }
      for (var j = 0u; j < KEYS; j++) {
        let weight = exp(scores[e * KEYS + j] - top);
        scores[e * KEYS + j] = weight;
        total[e] += weight;
      }
    }
    for (var j = 0u; j < KEYS; j++) {
      for (var d = 0u; d < D4; d++) {
        let v = values[j * D4 + d];
        for (var e = 0u; e < EACH; e++) { sum[e * D4 + d] = fma(vec4<f32>(scores[e * KEYS + j]), v, sum[e * D4 + d]); }
      }
    }
    workgroupBarrier();
  }

  for (var e = 0u; e < EACH; e++) {
    let t = first + e * LANES;
    if (t < end) {
      for (var d = 0u; d < D4; d++) {
        let v = sum[e * D4 + d] / total[e];
        for (var i = 0u; i < 4u; i++) {
          if (d * 4u + i < HEAD_SIZE) { out[t * p.C + head + d * 4u + i] = O(v[i]); }
        }
      }
    }
  }
}
