// One step of AdamW, in place; train/adamw.py explains it.
// Grid: a workgroup per CHUNK numbers. Dispatched by train/gpu.py.
struct Params { N: u32, factor: f32, rate: f32, eps: f32, decay: f32 }
const CHUNK: u32 = 4096u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> gradient: array<f32>;
@group(0) @binding(2) var<storage, read_write> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> m: array<f32>;
@group(0) @binding(4) var<storage, read_write> v: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  for (var i = group.x * CHUNK + lane; i < min((group.x + 1u) * CHUNK, p.N); i += 256u) {
    let g = gradient[i] * p.factor;
    m[i] = fma(0.1, g - m[i], m[i]); // 0.1 is 1 - beta1; below, 0.001 is 1 - beta2
    v[i] = fma(0.001, g * g, 0.999 * v[i]);
    weight[i] = fma(-p.rate, m[i] / (sqrt(v[i]) + p.eps), weight[i] * p.decay);
  }
}
