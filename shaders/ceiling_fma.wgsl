// How fast this device multiplies and adds: chains of fma in registers, the ceiling of matmuls.
// Grid: as many threads as keep the device busy. Dispatched by gpu/ceilings.py.
struct Params { rounds: u32 }
const FLOPS: u32 = 128u; // per thread and round: 16 vectors of four, multiplied and added
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let by = vec4<f32>(0.999);
  let plus = vec4<f32>(f32(id.x % 7u));
  var a = vec4<f32>(f32(id.x));
  var b = a + 1.0;
  var c = a + 2.0;
  var d = a + 3.0;
  for (var i = 0u; i < p.rounds; i++) {
    a = fma(a, by, plus); b = fma(b, by, plus); c = fma(c, by, plus); d = fma(d, by, plus);
    a = fma(a, by, plus); b = fma(b, by, plus); c = fma(c, by, plus); d = fma(d, by, plus);
    a = fma(a, by, plus); b = fma(b, by, plus); c = fma(c, by, plus); d = fma(d, by, plus);
    a = fma(a, by, plus); b = fma(b, by, plus); c = fma(c, by, plus); d = fma(d, by, plus);
  }
  out[id.x] = a + b + c + d;
}
