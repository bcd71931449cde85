// Softmax attention over packed sequences as tiled flash attention (Dao et al. 2022), without matrix units.
// Grid: a workgroup per tile of the work list and per head; its LANES lanes share the tile as flash_tile.wgsl says.
// Used by attention, attention_bias, which declare the bindings and `biased`, scores plus their biases.
//
// Blocks that no query of the tile sees are skipped. Blocks count from the start of the sequence and a lane's tokens from the
// start of its block, so the order of every sum, and a text's bits, do not depend on what else is in the batch.
const HEAD_SIZE: u32 = 64u;
const CAUSAL: u32 = 1u;
const QUERIES: u32 = 32u;
const LANES: u32 = 64u << (u32(HEAD_SIZE > 64u) + u32(HEAD_SIZE > 128u));
const HIDDEN: f32 = -2.0e38; // the score of a key that a query does not see; finite after exp2's factor of 1.44
const LOWEST: f32 = -1.0e38; // the initial maximum, above HIDDEN: so a hidden key's weight is 0 even before any key is seen
var<workgroup> shares: array<vec4<f32>, LANES>; // each lane's maxima, at the end its totals

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = tiles[workgroup.x];
  let start = spans[tile.x].x;
  let end = spans[tile.x].y;
  let first = start + tile.y;
  let column = workgroup.y * HEAD_SIZE;
  let key_column = p.C + workgroup.y / sharing(p.C) * HEAD_SIZE;
  let value_column = key_column + (p.N - p.C) / 2u;
  let d4s = unknown_d4(p.N);
  let group = lane % 8u;
  let part = lane / 8u;
  let query = first + 4u * group; // the first of the lane's four
  let last = min(first + QUERIES, end) - 1u;
  let seen_by_all = past_key(first, end); // keys before this one are seen by all queries: no mask
  let seen_from = first_key(last, start); // with a window, keys from this one on are seen by all
  let last_key = past_key(last, end);
  let first_block = first_key(first, start);

  var sums = array<mat4x4<f32>, FOURS>();
  var largest = vec4<f32>(LOWEST);
  var total = vec4<f32>();
  for (var block = first_block - (first_block - start) % KEYS; block < last_key; block += KEYS) {
    var scores = array<vec4<f32>, EACH>();
    for (var slice = 0u; slice < d4s; slice += SLICE) {
      workgroupBarrier(); // until what is staged has been read
      stage_left(first, end, column, slice, lane);
      stage_right(block, end, key_column, slice, lane);
      workgroupBarrier();
      add_products(&scores, min(SLICE, d4s - slice), lane);
    }

    let masked = block + KEYS > seen_by_all || (WINDOW > 0u && block < seen_from);
    var top = vec4<f32>(LOWEST);
    for (var k = 0u; k < EACH; k++) {
      let key = block + part * EACH + k;
      var s = biased(scores[k] * p.scale, workgroup.y, query, key);
      if (masked) { s = select(vec4<f32>(HIDDEN), s, four_see(query, key, start, end)); }
      scores[k] = s;
      top = larger(top, s);
    }
    shares[lane] = top;
    workgroupBarrier();
    top = largest;
    for (var i = group; i < LANES; i += 8u) { top = larger(top, shares[i]); }
    let fade = exp(largest - top);
    largest = top;
    total *= fade;
    for (var k = 0u; k < EACH; k++) {
      scores[k] = exp(scores[k] - top);
      total += scores[k];
    }
    put_weights(&scores, lane);
    for (var c = 0u; c < FOURS; c++) {
      sums[c][0] *= fade.x;
      sums[c][1] *= fade.y;
      sums[c][2] *= fade.z;
      sums[c][3] *= fade.w;
    }
    let keys = min(KEYS, last_key - block);
    for (var turn = 0u; turn < keys; turn += TURN) {
      if (turn > 0u) { workgroupBarrier(); }
      stage_rows(block + turn, end, value_column, lane);
      workgroupBarrier();
      add_rows(&sums, turn, min(TURN, keys - turn), lane);
    }
  }

  shares[lane] = total;
  workgroupBarrier();
  total = vec4<f32>();
  for (var i = group; i < LANES; i += 8u) { total += shares[i]; }
  for (var c = 0u; c < FOURS; c++) {
    let d4 = c * PARTS + part;
    if (d4 < D4) {
      let at = (query * p.C + column) / 4u + d4;
      if (query < end) { out[at] = vec4<O>(sums[c][0] / total.x); }
      if (query + 1u < end) { out[at + p.C / 4u] = vec4<O>(sums[c][1] / total.y); }
      if (query + 2u < end) { out[at + p.C / 2u] = vec4<O>(sums[c][2] / total.z); }
      if (query + 3u < end) { out[at + 3u * p.C / 4u] = vec4<O>(sums[c][3] / total.w); }
    }
  }
}
