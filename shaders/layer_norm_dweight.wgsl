// The sum over tokens of dout (x - mean) / std.
// The summation and its grid are in column_sum.wgsl. Declared in train/ops.py.
struct Params { T: u32, C: u32, onto: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> dweight: array<vec4<f32>>;

fn value(t: u32, c: u32) -> vec4<f32> {
  let at = t * (p.C / WIDE) + c;
  return dout[at] * ((x[at] - stats[t].x) * stats[t].y);
}

fn store(c: u32, sum: vec4<f32>) {
  if (p.onto == 1u) { dweight[c] += sum; } else { dweight[c] = sum; }
}
