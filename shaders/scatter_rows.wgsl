// The gradient of a table: for each row, the sum over the tokens that took it, without atomics.
// Grid: a workgroup per COLUMNS columns x and LINES / TOKEN_LANES rows y. Declared in train/ops.py.
//
// TOKEN_LANES lanes take a row's tokens side by side and a tree adds their sums: more than one where few rows have many tokens.
struct Params { T: u32, C: u32, V: u32, onto: u32 }
const COLUMNS: u32 = 32u;
const LINES: u32 = 8u;
const TOKEN_LANES: u32 = 1u;
const THREADS: u32 = COLUMNS * LINES;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> order: array<u32>;
@group(0) @binding(3) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> dtable: array<f32>;

var<workgroup> partial: array<f32, THREADS>;

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * COLUMNS + lane % COLUMNS;
  let line = lane / COLUMNS;
  let v = group.y * (LINES / TOKEN_LANES) + line / TOKEN_LANES;
  var tokens = vec2(0u, 0u);
  if (c < p.C && v < p.V) { tokens = rows[v]; }
  var sum = 0.0;
  for (var i = tokens.x + line % TOKEN_LANES; i < tokens.y; i += TOKEN_LANES) { sum += dout[order[i] * p.C + c]; }
  if (TOKEN_LANES > 1u) {
    partial[lane] = sum;
    workgroupBarrier();
    for (var half = TOKEN_LANES / 2u; half > 0u; half /= 2u) {
      if (line % TOKEN_LANES < half) { partial[lane] += partial[lane + half * COLUMNS]; }
      workgroupBarrier();
    }
    sum = partial[lane];
  }
  if (line % TOKEN_LANES > 0u || c >= p.C || v >= p.V) { return; }
  let at = v * p.C + c;
  if (p.onto == 0u) { dtable[at] = sum; } else if (tokens.x < tokens.y) { dtable[at] += sum; }
}
