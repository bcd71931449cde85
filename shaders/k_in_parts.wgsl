// A long k is added up in four parts. Their sums wait in `out`, as a large tile lacks the registers for a second set of them.
// Used by linear_add, linear_add_int8.
const PARTS: u32 = 4u;

fn keep_part(t: u32, n4: u32, sum: vec4<f32>, first: bool) {
  if (t < p.T && n4 < p.N / 4u) {
    let at = t * (p.N / 4u) + n4;
    if (first) { out[at] = sum; } else { out[at] += sum; }
  }
}

// The sum of all parts. sum: of the last one, after `keep_part` of the others.
fn add_parts(t: u32, n4: u32, sum: vec4<f32>) -> vec4<f32> {
  var total = sum;
  if (t < p.T && n4 < p.N / 4u) { total = out[t * (p.N / 4u) + n4] + sum; }
  return total;
}
