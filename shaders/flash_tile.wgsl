// The two small matmuls of tiled attention: rows of a tile times tokens of a block, and weights times rows of the block.
// Used by attention, attention_bias, attention_dqkv, attention_lse, on a GPU, where four divides a head's size.
//
// The tile is 32 rows, the block KEYS tokens. Lane = 8 part + group: it has rows 4 group .. 4 group + 3, and of the block EACH
// tokens while scores are computed, then every PARTS-th group of four columns, FOURS in all, while rows are added up.
// `left` holds columns of the tile's rows, then the weights; `right` holds columns of the block's tokens, then their rows.
// So what workgroup memory delivers once is used at least four times, and no lane holds a head's row.
const KEYS: u32 = 32u;
const PARTS: u32 = LANES / 8u;
const EACH: u32 = KEYS / PARTS;
const D4: u32 = HEAD_SIZE / 4u; // groups of four columns in a head
const FOURS: u32 = (D4 + PARTS - 1u) / PARTS;
const SLICE: u32 = 8u; // groups of four columns that are staged at a time
const ROOM: u32 = min(4u * LANES, 512u);
const TURN: u32 = KEYS >> (u32(D4 * 32u > ROOM) + u32(D4 * 16u > ROOM) + u32(D4 * 8u > ROOM) + u32(D4 * 4u > ROOM)); // rows staged at a time
var<workgroup> left: array<vec4<f32>, KEYS * 8u>; // [i * 8 + group]: column i, or the weight of token i, for four rows
var<workgroup> right: array<vec4<f32>, ROOM>;

// D4, in a form that no compiler knows: where it writes out a loop over slices, it may hold the address of each read of
// workgroup memory in a register.
fn unknown_d4(columns: u32) -> u32 { return min(D4, columns); }

// Four elements of a row of q, k or v, which begins at `column`; zeros past the head's end.
fn load(t: u32, column: u32, d4: u32) -> vec4<f32> {
  if (D4 % SLICE > 0u && d4 >= D4) { return vec4<f32>(); }
  return vec4<f32>(qkv[(t * p.N + column) / 4u + d4]);
}

fn put_left(i: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) {
  let at = i / 8u * 32u + i % 8u;
  left[at] = vec4<f32>(a.x, b.x, c.x, d.x);
  left[at + 8u] = vec4<f32>(a.y, b.y, c.y, d.y);
  left[at + 16u] = vec4<f32>(a.z, b.z, c.z, d.z);
  left[at + 24u] = vec4<f32>(a.w, b.w, c.w, d.w);
}

// Stages a slice of columns of the tile's rows, which begin at token `first`. Rows past the end repeat the last one.
fn stage_left(first: u32, end: u32, column: u32, slice: u32, lane: u32) {
  for (var i = lane; i < 8u * SLICE; i += LANES) {
    let t = first + i % 8u * 4u;
    let d4 = slice + i / 8u;
    put_left(
      i,
      load(min(t, end - 1u), column, d4),
      load(min(t + 1u, end - 1u), column, d4),
      load(min(t + 2u, end - 1u), column, d4),
      load(min(t + 3u, end - 1u), column, d4),
    );
  }
}

// Stages a slice of columns of the block's tokens. Tokens past the end repeat the last one.
fn stage_right(block: u32, end: u32, column: u32, slice: u32, lane: u32) {
  for (var i = lane; i < KEYS * SLICE; i += LANES) {
    right[i] = load(min(block + i / SLICE, end - 1u), column, slice + i % SLICE);
  }
}

// Stages whole rows of TURN tokens, from `first` on.
fn stage_rows(first: u32, end: u32, column: u32, lane: u32) {
  for (var i = lane; i < TURN * D4; i += LANES) {
    right[i] = load(min(first + i / D4, end - 1u), column, i % D4);
  }
}

// Adds the products over a staged slice, of `columns` groups of four, to the lane's scores: a vector per token, an element per row.
fn add_products(scores: ptr<function, array<vec4<f32>, EACH>>, columns: u32, lane: u32) {
  let group = lane % 8u;
  let token = lane / 8u * EACH;
  for (var d4 = 0u; d4 < columns; d4++) {
    let a = left[d4 * 32u + group];
    let b = left[d4 * 32u + 8u + group];
    let c = left[d4 * 32u + 16u + group];
    let d = left[d4 * 32u + 24u + group];
    for (var k = 0u; k < EACH; k++) {
      let v = right[(token + k) * SLICE + d4];
      var s = (*scores)[k];
      s = fma(a, vec4<f32>(v.x), s);
      s = fma(b, vec4<f32>(v.y), s);
      s = fma(c, vec4<f32>(v.z), s);
      (*scores)[k] = fma(d, vec4<f32>(v.w), s);
    }
  }
}

fn put_weights(weights: ptr<function, array<vec4<f32>, EACH>>, lane: u32) {
  for (var k = 0u; k < EACH; k++) { left[(lane / 8u * EACH + k) * 8u + lane % 8u] = (*weights)[k]; }
}

// Adds the first `count` staged rows, which begin at token `begin` of the block, times their weights to the lane's sums: a matrix
// per group of four columns, a column of it per row of the tile.
fn add_rows(sums: ptr<function, array<mat4x4<f32>, FOURS>>, begin: u32, count: u32, lane: u32) {
  let group = lane % 8u;
  let part = lane / 8u;
  for (var j = 0u; j < count; j++) {
    let w = left[(begin + j) * 8u + group];
    for (var c = 0u; c < FOURS; c++) {
      let v = right[j * D4 + min(c * PARTS + part, D4 - 1u)]; // surplus columns are not stored
      (*sums)[c][0] = fma(vec4<f32>(w.x), v, (*sums)[c][0]);
      (*sums)[c][1] = fma(vec4<f32>(w.y), v, (*sums)[c][1]);
      (*sums)[c][2] = fma(vec4<f32>(w.z), v, (*sums)[c][2]);
      (*sums)[c][3] = fma(vec4<f32>(w.w), v, (*sums)[c][3]);
    }
  }
}

// By elements: some drivers let one NaN spoil a whole vector.
fn larger(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> { return vec4<f32>(max(a.x, b.x), max(a.y, b.y), max(a.z, b.z), max(a.w, b.w)); }
