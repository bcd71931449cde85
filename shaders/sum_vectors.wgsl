// The sum of the parts of a vector's gradient; parts past the last token are not read.
// The summation and its grid are in column_sum.wgsl, whose rows are the parts. Declared in train/sums.py.
struct Params { P: u32, C: u32, T: u32, onto: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> parts: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> gradient: array<vec4<f32>>;

fn rows_of(part: u32) -> vec2<u32> { return vec2(0u, part_count()); }

fn value(t: u32, c: u32) -> vec4<f32> { return parts[t * (p.C / WIDE) + c]; }

fn store(part: u32, c: u32, sum: vec4<f32>) {
  if (p.onto == 1u) { gradient[c] += sum; } else { gradient[c] = sum; }
}
