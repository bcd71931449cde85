// How softmax attention loads a row where nothing says that four columns lie together.
// Used by attention, attention_bias, attention_dqkv, attention_lse, on a software driver or where four does not
// divide a head's size.
//
// Four elements of a head's row of q, k or v, which begins at `column`; zeros past the head's end.
fn load(t: u32, column: u32, d4: u32) -> vec4<f32> {
  var v = vec4<f32>();
  let at = t * p.N + column + d4 * 4u;
  for (var i = 0u; i < 4u; i++) {
    if (d4 * 4u + i < HEAD_SIZE) { v[i] = f32(qkv[at + i]); }
  }
  return v;
}
