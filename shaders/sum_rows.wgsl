// The gradient of a bias: the sum of dout over tokens.
// The summation and its grid are in column_sum.wgsl. Declared in train/sums.py.
struct Params { T: u32, C: u32, onto: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> dbias: array<vec4<f32>>;

fn value(t: u32, c: u32) -> vec4<f32> { return dout[t * (p.C / WIDE) + c]; }

fn store(c: u32, sum: vec4<f32>) {
  if (p.onto == 1u) { dbias[c] += sum; } else { dbias[c] = sum; }
}
