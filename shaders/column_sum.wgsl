// The sum of value(t, c) over all tokens t, for every column c, in an order that depends only on the number of tokens.
// Grid: a workgroup per COLUMNS columns. ROWS rows of lanes walk through the tokens side by side; a tree adds their sums.
// Used by layer_norm_dweight, sum_rows.
const COLUMNS: u32 = 16u;
const ROWS: u32 = 16u;
var<workgroup> partial: array<f32, COLUMNS * ROWS>;

@compute @workgroup_size(COLUMNS, ROWS)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
  var sum = 0.0;
  if (id.x < p.C) {
    for (var t = local.y; t < p.T; t += ROWS) { sum += value(t, id.x); }
  }
  partial[local.y * COLUMNS + local.x] = sum;
  workgroupBarrier();
  for (var half = ROWS / 2u; half > 0u; half /= 2u) {
    if (local.y < half) { partial[local.y * COLUMNS + local.x] += partial[(local.y + half) * COLUMNS + local.x]; }
    workgroupBarrier();
  }
  if (local.y == 0u && id.x < p.C) { store(id.x, partial[local.x]); }
}
