// The sums of value(row, c) over the rows of a part, for every group of columns c, in an order that depends only on how many they
// are; `store` takes them. rows_of(part): the first row, and the one past the last.
// Grid: a workgroup per COLUMN_LANES groups of columns x (token_lanes.wgsl) and part y.
// Used by layer_norm_dweight, sum_rows, sum_vectors.
var<workgroup> partial: array<vec4<f32>, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * COLUMN_LANES + lane % COLUMN_LANES;
  let rows = rows_of(group.y);
  var sum = vec4<f32>();
  if (c < p.C / WIDE) {
    var t = rows.x + lane / COLUMN_LANES;
    for (; t + 3u * TOKEN_LANES < rows.y; t += 4u * TOKEN_LANES) { // four loads are under way at a time
      let first = value(t, c);
      let second = value(t + TOKEN_LANES, c);
      let third = value(t + 2u * TOKEN_LANES, c);
      let fourth = value(t + 3u * TOKEN_LANES, c);
      sum += first;
      sum += second;
      sum += third;
      sum += fourth;
    }
    for (; t < rows.y; t += TOKEN_LANES) { sum += value(t, c); }
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = LANES / 2u; half >= COLUMN_LANES; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  if (lane < COLUMN_LANES && c < p.C / WIDE) { store(group.y, c, partial[lane]); }
}
