// Softmax attention in one pass (Milakov & Gimelshein 2018): where a larger score turns up, what was summed so far is made
// smaller by exp(old maximum - new maximum), so that all terms have the same maximum in the end.
// Grid: a workgroup per tile of the work list and per head, a thread per query.
// The second rung of the ladder of softmax; attention.wgsl declares the bindings.
const HEAD_SIZE: u32 = 64u;
const CAUSAL: u32 = 1u;
const QUERIES: u32 = 32u;
const D4: u32 = (HEAD_SIZE + 3u) / 4u; // groups of four in a head's row
const LOWEST: f32 = -1.0e38;

@compute @workgroup_size(QUERIES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = tiles[group.x];
  let start = spans[tile.x].x;
  let end = spans[tile.x].y;
  let t = start + tile.y + lane;
  if (t >= end) { return; }
  let column = group.y * HEAD_SIZE;
  let key_column = p.C + group.y / sharing(p.C) * HEAD_SIZE;
  let value_column = key_column + (p.N - p.C) / 2u;

  var q: array<vec4<f32>, D4>; // read once, for all keys
  for (var d = 0u; d < D4; d++) { q[d] = load(t, column, d) * p.scale; }
  var largest = LOWEST;
  var total = 0.0;
  var sum = array<vec4<f32>, D4>();
  for (var key = first_key(t, start); key < past_key(t, end); key++) {
    var s = vec4<f32>();
    for (var d = 0u; d < D4; d++) { s = fma(q[d], load(key, key_column, d), s); }
    let score = s.x + s.y + s.z + s.w;
    let top = max(largest, score);
    let fade = exp(largest - top);
    let weight = exp(score - top);
    largest = top;
    total = total * fade + weight;
    for (var d = 0u; d < D4; d++) { sum[d] = fma(vec4<f32>(weight), load(key, value_column, d), sum[d] * fade); }
  }

  for (var d = 0u; d < D4; d++) {
    for (var i = 0u; i < 4u; i++) {
      if (d * 4u + i < HEAD_SIZE) { out[t * p.C + column + d * 4u + i] = O(sum[d][i] / total); }
    }
  }
}
