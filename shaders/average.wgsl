// The moving average of a weight moves on to the weight as it is now, in place; train/average.py has the rule.
// Grid: a workgroup per CHUNK numbers. Dispatched by train/gpu.py.
struct Params { N: u32, share: f32 }
const CHUNK: u32 = 4096u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> weight: array<f32>;
@group(0) @binding(2) var<storage, read_write> average: array<f32>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  for (var i = group.x * CHUNK + lane; i < min((group.x + 1u) * CHUNK, p.N); i += 256u) {
    average[i] = select(fma(p.share, weight[i] - average[i], average[i]), weight[i], p.share == 1.0);
  }
}
