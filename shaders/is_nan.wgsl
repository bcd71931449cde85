// max and clamp may turn NaN into a number, and a comparison with it may be compiled away; its bits cannot.
fn is_nan(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}
