// op: causal_attention
// The bound is all there is to it: no mask, no score that is computed and thrown away.
struct Params { T: u32, C: u32, B: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> k: array<f32>;
@group(0) @binding(3) var<storage, read> v: array<f32>;
@group(0) @binding(4) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let c = group.x * 64u + lane;
  if (c >= p.C) { return; }
  let t = group.y;
  var span = vec2<u32>();
  for (var b = 0u; b < p.B; b++) {
    if (t >= spans[b].x && t < spans[b].y) { span = spans[b]; } // the text of token t
  }
  var largest = -3e38;
  var total = 0.0;
  var weighted = 0.0;
  for (var j = span.x; j <= t; j++) { // the tokens that t sees
    var dot = 0.0;
    for (var i = 0u; i < p.C; i++) { dot += q[t * p.C + i] * k[j * p.C + i]; }
    let s = dot / sqrt(f32(p.C));
    let before = largest;
    largest = max(largest, s);
    let scale = exp(before - largest);
    let weight = exp(s - largest);
    total = total * scale + weight;
    weighted = weighted * scale + weight * v[j * p.C + c];
  }
  out[t * p.C + c] = weighted / total;
}
