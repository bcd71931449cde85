// Softmax attention as the formula says it: one pass over the keys for the largest score, one for the sum of exp, one for the
// weighted sum of the values. Each pass computes the scores anew, so nothing is stored.
// Grid: a workgroup per tile of the work list and per head, a thread per query.
// The first rung of the ladder of softmax; attention.wgsl declares the bindings.
const HEAD_SIZE: u32 = 64u;
const CAUSAL: u32 = 1u;
const QUERIES: u32 = 32u;
const D4: u32 = (HEAD_SIZE + 3u) / 4u; // groups of four in a head's row
const LOWEST: f32 = -1.0e38;

fn score(t: u32, column: u32, key: u32, key_column: u32) -> f32 {
  var sum = vec4<f32>();
  for (var d = 0u; d < D4; d++) { sum = fma(load(t, column, d), load(key, key_column, d), sum); }
  return (sum.x + sum.y + sum.z + sum.w) * p.scale;
}

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

  var largest = LOWEST;
  for (var key = first_key(t, start); key < past_key(t, end); key++) { largest = max(largest, score(t, column, key, key_column)); }

  var total = 0.0;
  for (var key = first_key(t, start); key < past_key(t, end); key++) { total += exp(score(t, column, key, key_column) - largest); }

  var sum = array<vec4<f32>, D4>();
  for (var key = first_key(t, start); key < past_key(t, end); key++) {
    let weight = exp(score(t, column, key, key_column) - largest);
    for (var d = 0u; d < D4; d++) { sum[d] = fma(vec4<f32>(weight), load(key, value_column, d), sum[d]); }
  }

  for (var d = 0u; d < D4; d++) {
    for (var i = 0u; i < 4u; i++) {
      if (d * 4u + i < HEAD_SIZE) { out[t * p.C + column + d * 4u + i] = O(sum[d][i] / total); }
    }
  }
}
