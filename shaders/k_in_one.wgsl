// k is added up in one part.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
const PARTS: u32 = 1u;

fn keep_part(t: u32, n4: u32, sum: vec4<f32>, first: bool) {}

fn add_parts(t: u32, n4: u32, sum: vec4<f32>) -> vec4<f32> { return sum; }
