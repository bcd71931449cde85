// The gradients of q, k and v; the softmax is recomputed from its log-sum-exp (Dao et al. 2022, appendix B).
// Grid: a workgroup per tile of the work list and head, a thread per token. Declared in train/ops.py.
//
// A thread's token is first a query that walks over its keys (dq), then twice a key that walks over its queries (dv, then
// dk): there are no registers for both at once. The tokens walked over pass through workgroup memory in blocks: keys and
// values, then queries (scaled) and dout. If several query heads share a head of keys, the first
// one walks over the queries of all.
struct Params { T: u32, N: u32, C: u32, H: u32, B: u32, G: u32, scale: f32 }
const HEAD_SIZE: u32 = 64u;
const CAUSAL: u32 = 1u;
const WINDOW: u32 = 0u;
const KV_HEADS: u32 = 0u;
const QUERIES: u32 = 32u;
const D4: u32 = (HEAD_SIZE + 3u) / 4u; // groups of four in a head's row, the last one padded with zeros
const BLOCK: u32 = 256u / max(D4, 16u); // tokens: at most 4 KiB in each of the two blocks
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> out: array<f32>;
@group(0) @binding(3) var<storage, read> dout: array<f32>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read> tiles: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read_write> dqkv: array<f32>;

var<workgroup> block_a: array<vec4<f32>, BLOCK * D4>;
var<workgroup> block_b: array<vec4<f32>, BLOCK * D4>;
var<workgroup> block_lse: array<f32, BLOCK>;
var<workgroup> block_delta: array<f32, BLOCK>;

fn load_dout(t: u32, head: u32, d4: u32) -> vec4<f32> {
  var v = vec4<f32>();
  let at = t * p.C + head * HEAD_SIZE + d4 * 4u;
  for (var i = 0u; i < 4u; i++) {
    if (d4 * 4u + i < HEAD_SIZE) { v[i] = dout[at + i]; }
  }
  return v;
}

// Writes four elements of a head's row, which begins at `at`; none past the head's end.
fn store(at: u32, d4: u32, v: vec4<f32>) {
  for (var i = 0u; i < 4u; i++) {
    if (d4 * 4u + i < HEAD_SIZE) { dqkv[at + d4 * 4u + i] = v[i]; }
  }
}

fn delta(t: u32, head: u32) -> f32 {
  var sum = 0.0;
  let at = t * p.C + head * HEAD_SIZE;
  for (var d = 0u; d < HEAD_SIZE; d++) { sum = fma(dout[at + d], out[at + d], sum); }
  return sum;
}

fn total(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }

fn stage_queries(block: u32, end: u32, head: u32, lane: u32) {
  for (var i = lane; i < BLOCK * D4; i += QUERIES) {
    let t = min(block + i / D4, end - 1u);
    block_a[i] = load(t, head * HEAD_SIZE, i % D4) * p.scale;
    block_b[i] = load_dout(t, head, i % D4);
  }
  if (lane < BLOCK) {
    let t = min(block + lane, end - 1u);
    block_lse[lane] = lse[t * p.H + head];
    block_delta[lane] = delta(t, head);
  }
}

@compute @workgroup_size(QUERIES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = tiles[group.x];
  let start = spans[tile.x].x;
  let end = spans[tile.x].y;
  let head = group.y;
  let heads = sharing(p.C);
  let key_column = p.C + head / heads * HEAD_SIZE;
  let value_column = key_column + (p.N - p.C) / 2u;
  let first = start + tile.y;
  let t = min(first + lane, end - 1u); // threads past the end repeat the last token and are not stored
  let mine = first + lane < end;
  var row_a: array<vec4<f32>, D4>;
  var row_b: array<vec4<f32>, D4>;
  var sum: array<vec4<f32>, D4>;

  for (var d = 0u; d < D4; d++) {
    row_a[d] = load(t, head * HEAD_SIZE, d) * p.scale;
    row_b[d] = load_dout(t, head, d);
  }
  let my_lse = lse[t * p.H + head];
  let my_delta = delta(t, head);
  let last = min(first + QUERIES, end) - 1u;
  let keys_from = first_key(t, start);
  let keys_seen = past_key(t, end);
  let last_key = past_key(last, end);
  for (var block = first_key(first, start); block < last_key; block += BLOCK) {
    for (var i = lane; i < BLOCK * D4; i += QUERIES) {
      let key = min(block + i / D4, end - 1u);
      block_a[i] = load(key, key_column, i % D4);
      block_b[i] = load(key, value_column, i % D4);
    }
    workgroupBarrier();
    for (var j = 0u; j < BLOCK; j++) {
      if (block + j >= keys_from && block + j < keys_seen) {
        var score = vec4<f32>(0.0, 0.0, 0.0, 0.0);
        var dp = vec4<f32>(0.0, 0.0, 0.0, 0.0);
        for (var d = 0u; d < D4; d++) {
          score = fma(row_a[d], block_a[j * D4 + d], score);
          dp = fma(row_b[d], block_b[j * D4 + d], dp);
        }
        let ds = vec4<f32>(exp(total(score) - my_lse) * (total(dp) - my_delta));
        for (var d = 0u; d < D4; d++) { sum[d] = fma(ds, block_a[j * D4 + d], sum[d]); }
      }
    }
    workgroupBarrier();
  }
  let at = t * p.N;
  for (var d = 0u; d < D4; d++) {
    if (mine) { store(at + head * HEAD_SIZE, d, sum[d] * p.scale); }
  }
  if (head % heads > 0u) { return; }

  for (var d = 0u; d < D4; d++) {
    row_a[d] = load(t, key_column, d);
    sum[d] = vec4<f32>(0.0, 0.0, 0.0, 0.0);
  }
  let seen_from = first_query(t, start);
  let seen_to = past_query(t, end);
  let first_block = first_query(first, start);
  let last_query = past_query(last, end);
  for (var h = head; h < head + heads; h++) {
    for (var block = first_block; block < last_query; block += BLOCK) {
      stage_queries(block, end, h, lane);
      workgroupBarrier();
      for (var j = 0u; j < BLOCK; j++) {
        if (block + j >= seen_from && block + j < seen_to) {
          var score = vec4<f32>(0.0, 0.0, 0.0, 0.0);
          for (var d = 0u; d < D4; d++) { score = fma(row_a[d], block_a[j * D4 + d], score); }
          let weight = vec4<f32>(exp(total(score) - block_lse[j]));
          for (var d = 0u; d < D4; d++) { sum[d] = fma(weight, block_b[j * D4 + d], sum[d]); }
        }
      }
      workgroupBarrier();
    }
  }
  for (var d = 0u; d < D4; d++) {
    if (mine) { store(at + value_column, d, sum[d]); }
  }

  for (var d = 0u; d < D4; d++) {
    row_b[d] = load(t, value_column, d);
    sum[d] = vec4<f32>(0.0, 0.0, 0.0, 0.0);
  }
  for (var h = head; h < head + heads; h++) {
    for (var block = first_block; block < last_query; block += BLOCK) {
      stage_queries(block, end, h, lane);
      workgroupBarrier();
      for (var j = 0u; j < BLOCK; j++) {
        if (block + j >= seen_from && block + j < seen_to) {
          var score = vec4<f32>(0.0, 0.0, 0.0, 0.0);
          var dp = vec4<f32>(0.0, 0.0, 0.0, 0.0);
          for (var d = 0u; d < D4; d++) {
            score = fma(row_a[d], block_a[j * D4 + d], score);
            dp = fma(row_b[d], block_b[j * D4 + d], dp);
          }
          let ds = vec4<f32>(exp(total(score) - block_lse[j]) * (total(dp) - block_delta[j]));
          for (var d = 0u; d < D4; d++) { sum[d] = fma(ds, block_a[j * D4 + d], sum[d]); }
        }
      }
      workgroupBarrier();
    }
  }
  for (var d = 0u; d < D4; d++) {
    if (mine) { store(at + key_column, d, sum[d]); }
  }
}
