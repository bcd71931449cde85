// Rows that are read four columns at a time. Where four does not divide their width, gpu/rows.py takes ones.wgsl and replaces
// each vec4<X> by X, so a kernel that names WIDE is written once.
// Used by l2_normalize, l2_normalize_dx, layer_norm, layer_norm_dweight, layer_norm_dx, layer_norm_stats,
// norm_rotary, pool, pool_dx, rms_norm, rotary, sum_rows, sum_vectors.
const WIDE: u32 = 4u;

fn add_up(v: vec4<f32>) -> f32 { return (v.x + v.y) + (v.z + v.w); }
