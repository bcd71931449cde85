// The sum of dout (x - mean) / std over tokens, part by part of them, which sum_vectors.wgsl adds up.
// The summation and its grid are in column_sum.wgsl. Declared in train/sums.py.
struct Params { T: u32, C: u32, P: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> stats: array<vec2<f32>>;
@group(0) @binding(3) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> parts: array<vec4<f32>>;

fn rows_of(part: u32) -> vec2<u32> { return tokens_of(part); }

fn value(t: u32, c: u32) -> vec4<f32> {
  let at = t * (p.C / WIDE) + c;
  return dout[at] * ((x[at] - stats[t].x) * stats[t].y);
}

fn store(part: u32, c: u32, sum: vec4<f32>) { parts[part * (p.C / WIDE) + c] = sum; }
