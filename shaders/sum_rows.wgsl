// The gradient of a bias, part by part of the tokens: the sum of dout over them, which sum_vectors.wgsl adds up.
// The summation and its grid are in column_sum.wgsl. Declared in train/sums.py.
struct Params { T: u32, C: u32, P: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> parts: array<vec4<f32>>;

fn rows_of(part: u32) -> vec2<u32> { return tokens_of(part); }

fn value(t: u32, c: u32) -> vec4<f32> { return dout[t * (p.C / WIDE) + c]; }

fn store(part: u32, c: u32, sum: vec4<f32>) { parts[part * (p.C / WIDE) + c] = sum; }
