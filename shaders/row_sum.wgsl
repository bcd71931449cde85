// The sum of one value per lane of a workgroup, in a fixed order: PARTS lanes add some of them each, then every lane adds those.
// Used by l2_normalize, l2_normalize_dx, layer_norm, layer_norm_dx, layer_norm_stats, rms_norm, square_sum.
//
// Two barriers a call. No third is needed before the next call: it writes `part_sums` only after its own first barrier.
const LANES: u32 = 64u; // gpu/rows.py sets them for a row's width
const PARTS: u32 = 8u;
var<workgroup> partial: array<f32, LANES>;
var<workgroup> part_sums: array<f32, PARTS>;

fn row_sum(value: f32, lane: u32) -> f32 {
  partial[lane] = value;
  workgroupBarrier();
  if (lane % (LANES / PARTS) == 0u) {
    let part = lane / (LANES / PARTS);
    var sum = 0.0;
    for (var i = 0u; i < LANES / PARTS; i++) { sum += partial[part + i * PARTS]; }
    part_sums[part] = sum;
  }
  workgroupBarrier();
  var total = 0.0;
  for (var i = 0u; i < PARTS; i++) { total += part_sums[i]; }
  return total;
}
