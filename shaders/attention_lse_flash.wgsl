// log(sum(exp(scores))) of every query and head, on a GPU: tiles, blocks and lanes as in flash_forward.wgsl.
// Grid: a workgroup per tile of the work list and per head. Declared in train/ops.py.
//
// Each lane keeps the maximum and the sum of its own keys; they are brought together once, at the end.
struct Params { T: u32, N: u32, B: u32, G: u32, H: u32, scale: f32 }
const HEAD_SIZE: u32 = 64u;
const CAUSAL: u32 = 1u;
const WINDOW: u32 = 0u;
const KV_HEADS: u32 = 0u;
const QUERIES: u32 = 32u;
const LANES: u32 = 64u << (u32(HEAD_SIZE > 64u) + u32(HEAD_SIZE > 128u));
const HIDDEN: f32 = -2.0e38; // the score of a key that a query does not see; finite after exp2's factor of 1.44
const LOWEST: f32 = -1.0e38; // the initial maximum, above HIDDEN: so a hidden key's weight is 0
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> tiles: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let tile = tiles[workgroup.x];
  let start = spans[tile.x].x;
  let end = spans[tile.x].y;
  let first = start + tile.y;
  let width = p.H * HEAD_SIZE;
  let column = workgroup.y * HEAD_SIZE;
  let key_column = width + workgroup.y / sharing(width) * HEAD_SIZE;
  let d4s = unknown_d4(p.N);
  let query = first + 4u * (lane % 8u); // the first of the lane's four
  let last_key = past_key(min(first + QUERIES, end) - 1u, end);
  let first_block = first_key(first, start);
  var largest = vec4<f32>(LOWEST);
  var total = vec4<f32>();
  for (var block = first_block - (first_block - start) % KEYS; block < last_key; block += KEYS) {
    var scores = array<vec4<f32>, EACH>();
    for (var slice = 0u; slice < d4s; slice += SLICE) {
      stage_left(first, end, column, slice, lane);
      stage_right(block, end, key_column, slice, lane);
      workgroupBarrier();
      add_products(&scores, min(SLICE, d4s - slice), lane);
      workgroupBarrier(); // until what is staged has been read
    }
    var top = largest;
    for (var k = 0u; k < EACH; k++) {
      let seen = four_see(query, block + lane / 8u * EACH + k, start, end);
      scores[k] = select(vec4<f32>(HIDDEN), scores[k] * p.scale, seen);
      top = larger(top, scores[k]);
    }
    total *= exp(largest - top);
    largest = top;
    for (var k = 0u; k < EACH; k++) { total += exp(scores[k] - top); }
  }

  left[lane] = largest;
  right[lane] = total;
  workgroupBarrier();
  if (lane < QUERIES) {
    var top = LOWEST;
    for (var i = lane / 4u; i < LANES; i += 8u) { top = max(top, left[i][lane % 4u]); }
    var sum = 0.0;
    for (var i = lane / 4u; i < LANES; i += 8u) { sum = fma(right[i][lane % 4u], exp(left[i][lane % 4u] - top), sum); }
    let t = first + lane;
    if (t < end) { lse[t * p.H + workgroup.y] = top + log(sum); }
  }
}
