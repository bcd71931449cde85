// x / sqrt(mean(x^2) + eps) * weight for each head of q and k, then rotary positions as in rotary.wgsl. The columns from K on
// are copied.
// Grid: a workgroup per HEADS heads x and token y. HEAD_LANES lanes hold a head. Declared in graph/ops/embedding.py.
struct Params { T: u32, N: u32, K: u32, S: u32, D: u32, eps: f32 }
alias X = f32;
alias O = f32;
const HEADS: u32 = 4u; // gpu/rows.py sets them
const HEAD_LANES: u32 = 16u;
const HELD: u32 = 1u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<X>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> positions: array<u32>;
@group(0) @binding(4) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<O>>;

var<workgroup> partial: array<f32, HEADS * HEAD_LANES>;

@compute @workgroup_size(HEADS * HEAD_LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let half = p.D / (2u * WIDE);
  let head = group.x * HEADS + lane / HEAD_LANES;
  let place = lane % HEAD_LANES;
  let first = 2u * half * head; // of its groups of columns
  let row = group.y * (p.N / WIDE) + first;
  let groups = select(0u, half, head < p.N / p.D);
  var x: array<vec4<f32>, HELD>; // of the head's first half
  var y: array<vec4<f32>, HELD>; // of its second
  var square = vec4<f32>();
  for (var i = 0u; i < HELD; i++) {
    let d = place + i * HEAD_LANES;
    x[i] = vec4<f32>();
    y[i] = vec4<f32>();
    if (d < groups) {
      x[i] = vec4<f32>(qkv[row + d]);
      y[i] = vec4<f32>(qkv[row + half + d]);
    }
    square = fma(y[i], y[i], fma(x[i], x[i], square));
  }
  partial[lane] = add_up(square);
  workgroupBarrier();
  var sum = 0.0;
  for (var i = 0u; i < HEAD_LANES; i++) { sum += partial[lane - place + i]; }
  let scale = 1.0 / sqrt(sum / f32(p.D) + p.eps);
  for (var i = 0u; i < HELD; i++) {
    let d = place + i * HEAD_LANES;
    if (d < groups) {
      var turned_x = x[i];
      var turned_y = y[i];
      if (head * p.D < p.K) {
        let normed_x = x[i] * scale * weight[first + d];
        let normed_y = y[i] * scale * weight[first + half + d];
        let angle = positions[group.y] * 2u * half + d;
        turned_x = fma(normed_x, table[angle], -normed_y * table[angle + half]);
        turned_y = fma(normed_y, table[angle], normed_x * table[angle + half]);
      }
      out[row + d] = vec4<O>(turned_x);
      out[row + half + d] = vec4<O>(turned_y);
    }
  }
}
