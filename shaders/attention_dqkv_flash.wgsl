// The gradients of q, k and v on a GPU; the softmax is recomputed from its log-sum-exp (Dao et al. 2022, appendix B).
// Grid: a workgroup per tile of the work list and per head, its lanes as in flash_tile.wgsl. Declared in train/ops.py.
//
// The tile's tokens are first queries, over whose keys the workgroup walks in blocks (dq), then keys, over whose queries it walks
// (dv and dk). If several query heads share a head of keys, the workgroup of the first one walks over the queries of all.
struct Params { T: u32, N: u32, C: u32, H: u32, B: u32, G: u32, scale: f32 }
const HEAD_SIZE: u32 = 64u;
const CAUSAL: u32 = 1u;
const WINDOW: u32 = 0u;
const KV_HEADS: u32 = 0u;
const QUERIES: u32 = 32u;
const LANES: u32 = 128u << u32(HEAD_SIZE > 64u); // two sums at once: twice as many lanes as the forward pass
const SHARES: u32 = LANES / QUERIES; // lanes that share a token's delta
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> lse: array<f32>;
@group(0) @binding(5) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(6) var<storage, read> tiles: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read_write> dqkv: array<vec4<f32>>;

var<workgroup> token_lse: array<f32, QUERIES>;
var<workgroup> parts_of_delta: array<f32, LANES>; // sum(dout out) of QUERIES tokens, in SHARES parts each

fn load_dout(t: u32, head: u32, d4: u32) -> vec4<f32> {
  if (D4 % SLICE > 0u && d4 >= D4) { return vec4<f32>(); }
  return dout[(t * p.C + head * HEAD_SIZE) / 4u + d4];
}

fn stage_dout_left(first: u32, end: u32, head: u32, slice: u32, lane: u32) {
  for (var i = lane; i < 8u * SLICE; i += LANES) {
    let t = first + i % 8u * 4u;
    let d4 = slice + i / 8u;
    put_left(
      i,
      load_dout(min(t, end - 1u), head, d4),
      load_dout(min(t + 1u, end - 1u), head, d4),
      load_dout(min(t + 2u, end - 1u), head, d4),
      load_dout(min(t + 3u, end - 1u), head, d4),
    );
  }
}

fn stage_dout_right(block: u32, end: u32, head: u32, slice: u32, lane: u32) {
  for (var i = lane; i < KEYS * SLICE; i += LANES) {
    right[i] = load_dout(min(block + i / SLICE, end - 1u), head, slice + i % SLICE);
  }
}

fn stage_dout_rows(first: u32, end: u32, head: u32, lane: u32) {
  for (var i = lane; i < TURN * D4; i += LANES) {
    right[i] = load_dout(min(first + i / D4, end - 1u), head, i % D4);
  }
}

// Stages what the softmax of 32 queries, from `first` on, needs: their log-sum-exp and their delta, sum(dout out).
fn stage_softmax(first: u32, end: u32, head: u32, lane: u32) {
  let t = min(first + lane / SHARES, end - 1u);
  var sum = 0.0;
  for (var d4 = lane % SHARES; d4 < D4; d4 += SHARES) {
    sum += dot(dout[(t * p.C + head * HEAD_SIZE) / 4u + d4], out[(t * p.C + head * HEAD_SIZE) / 4u + d4]);
  }
  parts_of_delta[lane] = sum;
  if (lane % SHARES == 0u) { token_lse[lane / SHARES] = lse[t * p.H + head]; }
}

fn delta(token: u32) -> f32 {
  var sum = 0.0;
  for (var i = 0u; i < SHARES; i++) { sum += parts_of_delta[token * SHARES + i]; }
  return sum;
}

// Writes the lane's sums for the tile's rows, from token `first` on, to a head that begins at `column`.
fn store(sums: ptr<function, array<mat4x4<f32>, FOURS>>, first: u32, end: u32, column: u32, scale: f32, lane: u32) {
  let t = first + 4u * (lane % 8u);
  for (var c = 0u; c < FOURS; c++) {
    let d4 = c * PARTS + lane / 8u;
    if (d4 < D4) {
      let at = (t * p.N + column) / 4u + d4;
      if (t < end) { dqkv[at] = (*sums)[c][0] * scale; }
      if (t + 1u < end) { dqkv[at + p.N / 4u] = (*sums)[c][1] * scale; }
      if (t + 2u < end) { dqkv[at + p.N / 2u] = (*sums)[c][2] * scale; }
      if (t + 3u < end) { dqkv[at + 3u * p.N / 4u] = (*sums)[c][3] * scale; }
    }
  }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = tiles[workgroup.x];
  let start = spans[tile.x].x;
  let end = spans[tile.x].y;
  let head = workgroup.y;
  let heads = sharing(p.C);
  let key_column = p.C + head / heads * HEAD_SIZE;
  let value_column = key_column + (p.N - p.C) / 2u;
  let first = start + tile.y;
  let last = min(first + QUERIES, end) - 1u;
  let d4s = unknown_d4(p.N);
  let row = 4u * (lane % 8u); // the first of the lane's four, in the tile
  let token = lane / 8u * EACH; // the first of the lane's EACH, in the block

  stage_softmax(first, end, head, lane);
  workgroupBarrier();
  let row_lse = vec4<f32>(token_lse[row], token_lse[row + 1u], token_lse[row + 2u], token_lse[row + 3u]);
  let row_delta = vec4<f32>(delta(row), delta(row + 1u), delta(row + 2u), delta(row + 3u));
  var dq = array<mat4x4<f32>, FOURS>();
  let last_key = past_key(last, end);
  let first_key_block = first_key(first, start);
  for (var block = first_key_block - (first_key_block - start) % KEYS; block < last_key; block += KEYS) {
    var scores = array<vec4<f32>, EACH>();
    var ds = array<vec4<f32>, EACH>();
    for (var slice = 0u; slice < d4s; slice += SLICE) {
      stage_left(first, end, head * HEAD_SIZE, slice, lane);
      stage_right(block, end, key_column, slice, lane);
      workgroupBarrier();
      add_products(&scores, min(SLICE, d4s - slice), lane);
      workgroupBarrier(); // until what is staged has been read
      stage_dout_left(first, end, head, slice, lane);
      stage_right(block, end, value_column, slice, lane);
      workgroupBarrier();
      add_products(&ds, min(SLICE, d4s - slice), lane);
      workgroupBarrier();
    }
    for (var k = 0u; k < EACH; k++) {
      let seen = four_see(first + row, block + token + k, start, end);
      let weight = select(vec4<f32>(), exp(scores[k] * p.scale - row_lse), seen);
      ds[k] = weight * (ds[k] - row_delta);
    }
    put_weights(&ds, lane);
    let keys = min(KEYS, last_key - block);
    for (var turn = 0u; turn < keys; turn += TURN) {
      stage_rows(block + turn, end, key_column, lane);
      workgroupBarrier();
      add_rows(&dq, turn, min(TURN, keys - turn), lane);
      workgroupBarrier();
    }
  }
  store(&dq, first, end, head * HEAD_SIZE, p.scale, lane);
  if (head % heads > 0u) { return; }

  var dk = array<mat4x4<f32>, FOURS>();
  var dv = array<mat4x4<f32>, FOURS>();
  let last_query = past_query(last, end);
  let first_query_block = first_query(first, start);
  for (var h = head; h < head + heads; h++) {
    for (var block = first_query_block - (first_query_block - start) % KEYS; block < last_query; block += KEYS) {
      var weights = array<vec4<f32>, EACH>();
      var ds = array<vec4<f32>, EACH>();
      for (var slice = 0u; slice < d4s; slice += SLICE) {
        stage_left(first, end, key_column, slice, lane);
        stage_right(block, end, h * HEAD_SIZE, slice, lane);
        if (slice == 0u) { stage_softmax(block, end, h, lane); }
        workgroupBarrier();
        add_products(&weights, min(SLICE, d4s - slice), lane);
        workgroupBarrier();
        stage_left(first, end, value_column, slice, lane);
        stage_dout_right(block, end, h, slice, lane);
        workgroupBarrier();
        add_products(&ds, min(SLICE, d4s - slice), lane);
        workgroupBarrier();
      }
      for (var k = 0u; k < EACH; k++) {
        let seen = four_seen(block + token + k, first + row, start, end);
        weights[k] = select(vec4<f32>(), exp(weights[k] * p.scale - token_lse[token + k]), seen);
        ds[k] = weights[k] * (ds[k] - delta(token + k));
      }
      let queries = min(KEYS, last_query - block);
      put_weights(&weights, lane);
      for (var turn = 0u; turn < queries; turn += TURN) {
        stage_dout_rows(block + turn, end, h, lane);
        workgroupBarrier();
        add_rows(&dv, turn, min(TURN, queries - turn), lane);
        workgroupBarrier();
      }
      put_weights(&ds, lane);
      for (var turn = 0u; turn < queries; turn += TURN) {
        stage_rows(block + turn, end, h * HEAD_SIZE, lane);
        workgroupBarrier();
        add_rows(&dk, turn, min(TURN, queries - turn), lane);
        workgroupBarrier();
      }
    }
  }
  store(&dv, first, end, value_column, 1.0, lane);
  store(&dk, first, end, key_column, p.scale, lane);
}
