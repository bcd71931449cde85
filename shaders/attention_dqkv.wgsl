// The gradients of q, k and v, with the softmax recomputed from its log-sum-exp (Dao et al. 2022). A workgroup takes one
// tile of the work list and one head, a thread one token: first as a query that walks over its keys (dq), then twice as
// a key that walks over its queries (dv, dk), as no thread has registers for both at once. Blocks of the tokens walked
// over come through workgroup memory: keys and values, then queries (scaled) and dout.
struct Params { T: u32, C: u32, H: u32, B: u32, G: u32, scale: f32 }
const HEAD_SIZE: u32 = 64u;
const CAUSAL: u32 = 1u;
const QUERIES: u32 = 32u;
const D4: u32 = (HEAD_SIZE + 3u) / 4u; // a head's row in groups of four, the last one filled up with zeros
const BLOCK: u32 = 256u / max(D4, 16u); // 4 KiB of each of the two, whatever the head
const QUERY: u32 = 0u; // its row of qkv is at QUERY C, KEY C and VALUE C
const KEY: u32 = 1u;
const VALUE: u32 = 2u;
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

fn load(part: u32, t: u32, head: u32, d4: u32) -> vec4<f32> {
  var v = vec4<f32>();
  let at = (t * 3u + part) * p.C + head * HEAD_SIZE + d4 * 4u;
  for (var i = 0u; i < 4u; i++) {
    if (d4 * 4u + i < HEAD_SIZE) { v[i] = qkv[at + i]; }
  }
  return v;
}

fn load_dout(t: u32, head: u32, d4: u32) -> vec4<f32> {
  var v = vec4<f32>();
  let at = t * p.C + head * HEAD_SIZE + d4 * 4u;
  for (var i = 0u; i < 4u; i++) {
    if (d4 * 4u + i < HEAD_SIZE) { v[i] = dout[at + i]; }
  }
  return v;
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
    block_a[i] = load(QUERY, t, head, i % D4) * p.scale;
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
  let first = start + tile.y;
  let t = min(first + lane, end - 1u); // threads past the end repeat the last token and store nothing
  let mine = first + lane < end;
  var row_a: array<vec4<f32>, D4>;
  var row_b: array<vec4<f32>, D4>;
  var sum: array<vec4<f32>, D4>;

  for (var d = 0u; d < D4; d++) {
    row_a[d] = load(QUERY, t, head, d) * p.scale;
    row_b[d] = load_dout(t, head, d);
  }
  let my_lse = lse[t * p.H + head];
  let my_delta = delta(t, head);
  let keys_seen = select(end, t + 1u, CAUSAL == 1u);
  let last_key = select(end, min(first + QUERIES, end), CAUSAL == 1u);
  for (var block = start; block < last_key; block += BLOCK) {
    for (var i = lane; i < BLOCK * D4; i += QUERIES) {
      let key = min(block + i / D4, end - 1u);
      block_a[i] = load(KEY, key, head, i % D4);
      block_b[i] = load(VALUE, key, head, i % D4);
    }
    workgroupBarrier();
    for (var j = 0u; j < BLOCK; j++) {
      if (block + j < keys_seen) {
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
  let at = t * 3u * p.C + head * HEAD_SIZE;
  for (var d = 0u; d < HEAD_SIZE; d++) {
    if (mine) { dqkv[at + d] = sum[d / 4u][d % 4u] * p.scale; }
  }

  for (var d = 0u; d < D4; d++) {
    row_a[d] = load(KEY, t, head, d);
    sum[d] = vec4<f32>(0.0, 0.0, 0.0, 0.0);
  }
  let first_query = select(start, first, CAUSAL == 1u);
  let seen_from = select(start, t, CAUSAL == 1u);
  for (var block = first_query; block < end; block += BLOCK) {
    stage_queries(block, end, head, lane);
    workgroupBarrier();
    for (var j = 0u; j < BLOCK; j++) {
      if (block + j >= seen_from && block + j < end) {
        var score = vec4<f32>(0.0, 0.0, 0.0, 0.0);
        for (var d = 0u; d < D4; d++) { score = fma(row_a[d], block_a[j * D4 + d], score); }
        let weight = vec4<f32>(exp(total(score) - block_lse[j]));
        for (var d = 0u; d < D4; d++) { sum[d] = fma(weight, block_b[j * D4 + d], sum[d]); }
      }
    }
    workgroupBarrier();
  }
  for (var d = 0u; d < HEAD_SIZE; d++) {
    if (mine) { dqkv[at + VALUE * p.C + d] = sum[d / 4u][d % 4u]; }
  }

  for (var d = 0u; d < D4; d++) {
    row_b[d] = load(VALUE, t, head, d);
    sum[d] = vec4<f32>(0.0, 0.0, 0.0, 0.0);
  }
  for (var block = first_query; block < end; block += BLOCK) {
    stage_queries(block, end, head, lane);
    workgroupBarrier();
    for (var j = 0u; j < BLOCK; j++) {
      if (block + j >= seen_from && block + j < end) {
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
  for (var d = 0u; d < HEAD_SIZE; d++) {
    if (mine) { dqkv[at + KEY * p.C + d] = sum[d / 4u][d % 4u]; }
  }
}
