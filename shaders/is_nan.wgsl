// Whether a number is NaN, by its bits: max and clamp may turn NaN into a number, and a compiler may remove a comparison.
// Used by activate, activate_dx, glu, linear, linear_int8, nearest_rows, pool.
fn is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
