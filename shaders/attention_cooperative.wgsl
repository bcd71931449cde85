// Softmax attention on matrix units, online (Dao et al. 2022): f16 operands, f32 scores and sums.
// Grid: a workgroup per tile of the work list and head, a subgroup per FRAGMENT queries.
// Declared in graph/ops/self_attention.py.
//
// The results stay in fragments, whose elements a shader cannot address. So scores pass through workgroup memory, where SHARES
// lanes turn each row into f16 weights, and results are rescaled only when a maximum has grown by more than LAZY (as in cmf's
// zi_flash). Weights stay below exp(LAZY), and the decision depends on the tile's own sequence, not on the batch. No subgroup
// arithmetic: some drivers crash where it meets matrix units. Rows in workgroup memory, and its arrays, are multiples of 16
// bytes long, so that in any layout fragments begin at one, as Vulkan demands.
struct Params { T: u32, N: u32, B: u32, G: u32, C: u32, scale: f32 }
alias X = f32;
alias O = f32;
alias Left = coop_mat16x16<f16, A>;
alias Right = coop_mat16x16<f16, B>;
alias Sum = coop_mat16x16<f32, C>;
const HEAD_SIZE: u32 = 64u; // a multiple of 2 FRAGMENT, up to 8 FRAGMENT
const CAUSAL: u32 = 1u;
const QUERIES: u32 = 32u;
const FRAGMENT: u32 = 16u;
const SUBGROUP: u32 = 32u; // lanes
const PARTS: u32 = QUERIES / FRAGMENT;
const LANES: u32 = PARTS * SUBGROUP;
const SHARES: u32 = LANES / QUERIES; // lanes per query; SUBGROUP is a multiple of FRAGMENT
const KEYS: u32 = 2u * FRAGMENT; // keys in a block
const D4: u32 = HEAD_SIZE / 4u;
const COLUMN2: u32 = min(2u * FRAGMENT, HEAD_SIZE - FRAGMENT); // of a fragment; those past the head are never read, but must lie inside
const COLUMN3: u32 = min(3u * FRAGMENT, HEAD_SIZE - FRAGMENT);
const COLUMN4: u32 = min(4u * FRAGMENT, HEAD_SIZE - FRAGMENT);
const COLUMN5: u32 = min(5u * FRAGMENT, HEAD_SIZE - FRAGMENT);
const COLUMN6: u32 = min(6u * FRAGMENT, HEAD_SIZE - FRAGMENT);
const COLUMN7: u32 = min(7u * FRAGMENT, HEAD_SIZE - FRAGMENT);
const PITCH: u32 = HEAD_SIZE + 8u; // rows are padded, so that fragments are read without bank conflicts
const WEIGHT_PITCH: u32 = KEYS + 8u;
const SCORE_PITCH: u32 = KEYS + 4u;
const LAZY: f32 = 5.5; // weights stay below exp(5.5) = 245, far inside f16
const HIDDEN: f32 = -2.0e38; // the score of a key that a query does not see; finite even after exp's factor log2(e)
const LOWEST: f32 = -1.0e38; // the initial maximum, above HIDDEN: so a hidden key's weight is 0 even before any key is seen
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<X>>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> tiles: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<O>>;

var<workgroup> keys: array<f16, QUERIES * PITCH>; // first used for the queries
var<workgroup> values: array<f16, KEYS * PITCH>;
var<workgroup> scores: array<f32, QUERIES * SCORE_PITCH>; // also results, KEYS columns at a time
var<workgroup> weights: array<f16, QUERIES * WEIGHT_PITCH>;
var<workgroup> totals: array<f32, QUERIES * SHARES>;
var<workgroup> grown: array<atomic<u32>, 4>; // the first is 1 if a maximum has; several lanes may say so. 16 bytes, like all sizes

fn load(t: u32, column: u32, d4: u32) -> vec4<f16> { return vec4<f16>(qkv[(t * p.N + column) / 4u + d4]); }

fn stage_key(at: u32, v: vec4<f16>) {
  keys[at] = v.x;
  keys[at + 1u] = v.y;
  keys[at + 2u] = v.z;
  keys[at + 3u] = v.w;
}

fn stage_value(at: u32, v: vec4<f16>) {
  values[at] = v.x;
  values[at + 1u] = v.y;
  values[at + 2u] = v.z;
  values[at + 3u] = v.w;
}

// Multiplies KEYS columns of the results, which lie in `scores`, by the factor of the lane's row.
fn rescale(lane: u32, factor: f32) {
  workgroupBarrier();
  for (var j = lane % SHARES; j < KEYS; j += SHARES) { scores[lane / SHARES * SCORE_PITCH + j] *= factor; }
  workgroupBarrier();
}

fn finish(lane: u32, first: u32, end: u32, column: u32) {
  workgroupBarrier();
  for (var i = lane; i < QUERIES * KEYS / 4u; i += LANES) {
    let row = i / (KEYS / 4u);
    let at = row * SCORE_PITCH + i % (KEYS / 4u) * 4u;
    var total = 0.0;
    for (var s = 0u; s < SHARES; s++) { total += totals[row * SHARES + s]; }
    if (first + row < end) {
      let v = vec4(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]) / total;
      out[((first + row) * p.C + column) / 4u + i % (KEYS / 4u)] = vec4<O>(v);
    }
  }
  workgroupBarrier();
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32) {
  let tile = tiles[group.x];
  let start = spans[tile.x].x;
  let end = spans[tile.x].y;
  let head = group.y * HEAD_SIZE;
  let first = start + tile.y;
  let row = subgroup % PARTS * FRAGMENT; // surplus subgroups repeat the work: matrix units need uniform control flow
  let at = row * SCORE_PITCH;
  let beside = at + FRAGMENT;

  for (var i = lane; i < QUERIES * D4; i += LANES) { // queries past the end repeat the last one and are not stored
    stage_key(i / D4 * PITCH + i % D4 * 4u, load(min(first + i / D4, end - 1u), head, i % D4));
  }
  if (lane == 0u) { atomicStore(&grown[0], 0u); }
  workgroupBarrier();
  var q0 = Left(); var q1 = Left(); var q2 = Left(); var q3 = Left();
  var q4 = Left(); var q5 = Left(); var q6 = Left(); var q7 = Left();
  q0 = coopLoadT<Left>(&keys[row * PITCH], PITCH);
  q1 = coopLoadT<Left>(&keys[row * PITCH + FRAGMENT], PITCH);
  if (HEAD_SIZE > 2u * FRAGMENT) {
    q2 = coopLoadT<Left>(&keys[row * PITCH + COLUMN2], PITCH);
    q3 = coopLoadT<Left>(&keys[row * PITCH + COLUMN3], PITCH);
  }
  if (HEAD_SIZE > 4u * FRAGMENT) {
    q4 = coopLoadT<Left>(&keys[row * PITCH + COLUMN4], PITCH);
    q5 = coopLoadT<Left>(&keys[row * PITCH + COLUMN5], PITCH);
  }
  if (HEAD_SIZE > 6u * FRAGMENT) {
    q6 = coopLoadT<Left>(&keys[row * PITCH + COLUMN6], PITCH);
    q7 = coopLoadT<Left>(&keys[row * PITCH + COLUMN7], PITCH);
  }
  workgroupBarrier();

  var o0 = Sum(); var o1 = Sum(); var o2 = Sum(); var o3 = Sum();
  var o4 = Sum(); var o5 = Sum(); var o6 = Sum(); var o7 = Sum();
  var s0 = Sum(); var s1 = Sum();
  let query = lane / SHARES; // the row of this lane
  let share = lane % SHARES;
  let keys_seen = select(end, min(first + query, end - 1u) + 1u, CAUSAL == 1u);
  let seen_by_all = select(end, first + 1u, CAUSAL == 1u); // keys before this one need no mask
  let last_key = select(end, min(first + QUERIES, end), CAUSAL == 1u);
  var largest = LOWEST;
  var total = 0.0;

  for (var block = start; block < last_key; block += KEYS) {
    for (var i = lane; i < KEYS * D4; i += LANES) {
      let key = min(block + i / D4, end - 1u);
      stage_key(i / D4 * PITCH + i % D4 * 4u, load(key, p.C + head, i % D4));
      stage_value(i / D4 * PITCH + i % D4 * 4u, load(key, 2u * p.C + head, i % D4));
    }
    workgroupBarrier();

    s0 = Sum();
    s1 = Sum();
    s0 = coopMultiplyAdd(q0, coopLoad<Right>(&keys[0], PITCH), s0);
    s1 = coopMultiplyAdd(q0, coopLoad<Right>(&keys[FRAGMENT * PITCH], PITCH), s1);
    s0 = coopMultiplyAdd(q1, coopLoad<Right>(&keys[FRAGMENT], PITCH), s0);
    s1 = coopMultiplyAdd(q1, coopLoad<Right>(&keys[FRAGMENT * PITCH + FRAGMENT], PITCH), s1);
    if (HEAD_SIZE > 2u * FRAGMENT) {
      s0 = coopMultiplyAdd(q2, coopLoad<Right>(&keys[COLUMN2], PITCH), s0);
      s1 = coopMultiplyAdd(q2, coopLoad<Right>(&keys[FRAGMENT * PITCH + COLUMN2], PITCH), s1);
      s0 = coopMultiplyAdd(q3, coopLoad<Right>(&keys[COLUMN3], PITCH), s0);
      s1 = coopMultiplyAdd(q3, coopLoad<Right>(&keys[FRAGMENT * PITCH + COLUMN3], PITCH), s1);
    }
    if (HEAD_SIZE > 4u * FRAGMENT) {
      s0 = coopMultiplyAdd(q4, coopLoad<Right>(&keys[COLUMN4], PITCH), s0);
      s1 = coopMultiplyAdd(q4, coopLoad<Right>(&keys[FRAGMENT * PITCH + COLUMN4], PITCH), s1);
      s0 = coopMultiplyAdd(q5, coopLoad<Right>(&keys[COLUMN5], PITCH), s0);
      s1 = coopMultiplyAdd(q5, coopLoad<Right>(&keys[FRAGMENT * PITCH + COLUMN5], PITCH), s1);
    }
    if (HEAD_SIZE > 6u * FRAGMENT) {
      s0 = coopMultiplyAdd(q6, coopLoad<Right>(&keys[COLUMN6], PITCH), s0);
      s1 = coopMultiplyAdd(q6, coopLoad<Right>(&keys[FRAGMENT * PITCH + COLUMN6], PITCH), s1);
      s0 = coopMultiplyAdd(q7, coopLoad<Right>(&keys[COLUMN7], PITCH), s0);
      s1 = coopMultiplyAdd(q7, coopLoad<Right>(&keys[FRAGMENT * PITCH + COLUMN7], PITCH), s1);
    }
    coopStoreT(s0, &scores[at], SCORE_PITCH);
    coopStoreT(s1, &scores[beside], SCORE_PITCH);
    workgroupBarrier();

    let masked = block + KEYS > seen_by_all;
    var top = largest;
    for (var j = 0u; j < KEYS; j++) {
      var s = scores[query * SCORE_PITCH + j] * p.scale;
      if (masked) { s = select(HIDDEN, s, block + j < keys_seen); }
      top = max(top, s);
    }
    if (block == start) { largest = top; } // nothing to rescale yet
    if (top > largest + LAZY) { atomicStore(&grown[0], 1u); }
    let rescaled = workgroupUniformLoad(&grown[0]) == 1u;
    var fade = 1.0;
    if (rescaled) {
      fade = exp(largest - top);
      largest = top;
      total *= fade;
    }
    for (var j = share; j < KEYS; j += SHARES) {
      var s = scores[query * SCORE_PITCH + j] * p.scale;
      if (masked) { s = select(HIDDEN, s, block + j < keys_seen); }
      let weight = f16(exp(s - largest));
      weights[query * WEIGHT_PITCH + j] = weight;
      total += f32(weight);
    }
    workgroupBarrier();

    if (rescaled) {
      if (lane == 0u) { atomicStore(&grown[0], 0u); }
      coopStoreT(o0, &scores[at], SCORE_PITCH);
      coopStoreT(o1, &scores[beside], SCORE_PITCH);
      rescale(lane, fade);
      o0 = coopLoadT<Sum>(&scores[at], SCORE_PITCH);
      o1 = coopLoadT<Sum>(&scores[beside], SCORE_PITCH);
      if (HEAD_SIZE > 2u * FRAGMENT) {
        workgroupBarrier();
        coopStoreT(o2, &scores[at], SCORE_PITCH);
        coopStoreT(o3, &scores[beside], SCORE_PITCH);
        rescale(lane, fade);
        o2 = coopLoadT<Sum>(&scores[at], SCORE_PITCH);
        o3 = coopLoadT<Sum>(&scores[beside], SCORE_PITCH);
      }
      if (HEAD_SIZE > 4u * FRAGMENT) {
        workgroupBarrier();
        coopStoreT(o4, &scores[at], SCORE_PITCH);
        coopStoreT(o5, &scores[beside], SCORE_PITCH);
        rescale(lane, fade);
        o4 = coopLoadT<Sum>(&scores[at], SCORE_PITCH);
        o5 = coopLoadT<Sum>(&scores[beside], SCORE_PITCH);
      }
      if (HEAD_SIZE > 6u * FRAGMENT) {
        workgroupBarrier();
        coopStoreT(o6, &scores[at], SCORE_PITCH);
        coopStoreT(o7, &scores[beside], SCORE_PITCH);
        rescale(lane, fade);
        o6 = coopLoadT<Sum>(&scores[at], SCORE_PITCH);
        o7 = coopLoadT<Sum>(&scores[beside], SCORE_PITCH);
      }
    }

    for (var j = 0u; j < KEYS; j += FRAGMENT) {
      let w = coopLoadT<Left>(&weights[row * WEIGHT_PITCH + j], WEIGHT_PITCH);
      o0 = coopMultiplyAdd(w, coopLoadT<Right>(&values[j * PITCH], PITCH), o0);
      o1 = coopMultiplyAdd(w, coopLoadT<Right>(&values[j * PITCH + FRAGMENT], PITCH), o1);
      if (HEAD_SIZE > 2u * FRAGMENT) {
        o2 = coopMultiplyAdd(w, coopLoadT<Right>(&values[j * PITCH + COLUMN2], PITCH), o2);
        o3 = coopMultiplyAdd(w, coopLoadT<Right>(&values[j * PITCH + COLUMN3], PITCH), o3);
      }
      if (HEAD_SIZE > 4u * FRAGMENT) {
        o4 = coopMultiplyAdd(w, coopLoadT<Right>(&values[j * PITCH + COLUMN4], PITCH), o4);
        o5 = coopMultiplyAdd(w, coopLoadT<Right>(&values[j * PITCH + COLUMN5], PITCH), o5);
      }
      if (HEAD_SIZE > 6u * FRAGMENT) {
        o6 = coopMultiplyAdd(w, coopLoadT<Right>(&values[j * PITCH + COLUMN6], PITCH), o6);
        o7 = coopMultiplyAdd(w, coopLoadT<Right>(&values[j * PITCH + COLUMN7], PITCH), o7);
      }
    }
    workgroupBarrier();
  }

  if (subgroups < PARTS) { total = bitcast<f32>(p.C | 0x7fc00000u); } // subgroups are wider than SUBGROUP: give NaN rather than leave a part out
  totals[lane] = total;
  coopStoreT(o0, &scores[at], SCORE_PITCH);
  coopStoreT(o1, &scores[beside], SCORE_PITCH);
  finish(lane, first, end, head);
  if (HEAD_SIZE > 2u * FRAGMENT) {
    coopStoreT(o2, &scores[at], SCORE_PITCH);
    coopStoreT(o3, &scores[beside], SCORE_PITCH);
    finish(lane, first, end, head + 2u * FRAGMENT);
  }
  if (HEAD_SIZE > 4u * FRAGMENT) {
    coopStoreT(o4, &scores[at], SCORE_PITCH);
    coopStoreT(o5, &scores[beside], SCORE_PITCH);
    finish(lane, first, end, head + 4u * FRAGMENT);
  }
  if (HEAD_SIZE > 6u * FRAGMENT) {
    coopStoreT(o6, &scores[at], SCORE_PITCH);
    coopStoreT(o7, &scores[beside], SCORE_PITCH);
    finish(lane, first, end, head + 6u * FRAGMENT);
  }
}
