// The sum of one value per lane of a workgroup, in a fixed order.
// Used by l2_normalize, l2_normalize_dx, layer_norm, layer_norm_dx, layer_norm_stats, rms_norm, square_sum.
const LANES: u32 = 64u;
var<workgroup> partial: array<f32, LANES>;

fn row_sum(value: f32, lane: u32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    if (lane < half) { partial[lane] += partial[lane + half]; }
    workgroupBarrier();
  }
  let total = partial[0];
  workgroupBarrier(); // before the next call overwrites `partial`
  return total;
}
