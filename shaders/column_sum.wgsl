// The sum of value(t, c) over all tokens t, for every group of columns c, in an order that depends only on the number of tokens.
// Grid: a workgroup per COLUMN_LANES groups of columns (token_lanes.wgsl).
// Used by layer_norm_dweight, sum_rows.
var<workgroup> partial: array<vec4<f32>, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * COLUMN_LANES + lane % COLUMN_LANES;
  var sum = vec4<f32>();
  if (c < p.C / WIDE) {
    var t = lane / COLUMN_LANES;
    for (; t + 3u * TOKEN_LANES < p.T; t += 4u * TOKEN_LANES) { // four loads are under way at a time
      let first = value(t, c);
      let second = value(t + TOKEN_LANES, c);
      let third = value(t + 2u * TOKEN_LANES, c);
      let fourth = value(t + 3u * TOKEN_LANES, c);
      sum += first;
      sum += second;
      sum += third;
      sum += fourth;
    }
    for (; t < p.T; t += TOKEN_LANES) { sum += value(t, c); }
  }
  partial[lane] = sum;
  workgroupBarrier();
  for (var half = LANES / 2u; half >= COLUMN_LANES; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  if (lane < COLUMN_LANES && c < p.C / WIDE) { store(c, partial[lane]); }
}
