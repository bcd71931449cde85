// op: softmax_mean
// In the first round the scale is exp(-3e38 - s), which is 0, and so are the sums.
struct Params { T: u32, C: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> score: array<f32>;
@group(0) @binding(2) var<storage, read> value: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.T) { return; }
  var largest = -3e38;
  var total = 0.0; // of the weights
  var weighted = 0.0; // of the weights times the values
  for (var c = 0u; c < p.C; c++) {
    let s = score[id.x * p.C + c];
    let before = largest;
    largest = max(largest, s);
    let scale = exp(before - largest);
    let weight = exp(s - largest);
    total = total * scale + weight;
    weighted = weighted * scale + weight * value[c];
  }
  out[id.x] = weighted / total;
}
