// op: softmax_mean
// Puzzle 8: online softmax. For each row of scores, out is the mean of `value`, weighted by the softmax of the scores:
// sum(exp(score - m) value) / sum(exp(score - m)), where m is the row's largest score. One thread computes one row.
//
// Puzzle 7 read each row three times. Here one loop suffices, with the largest score so far in place of m: when a
// larger one comes, what was summed so far is too large by exp(new maximum - old maximum), and is scaled. Attention
// over long texts works like this.
//
// TODO: the loop below forgets to scale what it has summed when the maximum grows.
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
    largest = max(largest, s);
    let weight = exp(s - largest);
    total += weight;
    weighted += weight * value[c];
  }
  out[id.x] = weighted / total;
}
