// fours.wgsl for rows that are read one column at a time.
// Used by l2_normalize, l2_normalize_dx, layer_norm, layer_norm_dweight, layer_norm_dx, layer_norm_stats,
// norm_rotary, pool, pool_dx, rms_norm, rotary, sum_rows, sum_vectors.
const WIDE: u32 = 1u;

fn add_up(v: f32) -> f32 { return v; }
