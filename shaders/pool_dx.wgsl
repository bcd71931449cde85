// Each token's share of the gradient of its sequence's row; MODE is one of pooling_modes.wgsl.
// Grid: a thread per column x and sequence y; it loops over the tokens. Declared in train/ops.py.
struct Params { T: u32, C: u32, B: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> dout: array<f32>;
@group(0) @binding(3) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read> skip: array<u32>;
@group(0) @binding(5) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= p.C) { return; }
  let start = spans[id.y].x;
  let end = spans[id.y].y;
  let first = start + skip[id.y];
  let n = f32(end - first);
  let d = dout[id.y * p.C + c];
  var chosen = first; // the token that gets the whole gradient
  if (MODE == LAST) { chosen = end - 1u; }
  if (MODE == MAX) {
    for (var t = first + 1u; t < end; t++) {
      if (x[t * p.C + c] > x[chosen * p.C + c]) { chosen = t; }
    }
  }
  var weights = 0.0;
  if (MODE == WEIGHTED_MEAN) {
    for (var t = first; t < end; t++) { weights += f32(t - start + 1u); }
  }
  for (var t = start; t < end; t++) {
    var share = select(0.0, d, t == chosen);
    if (MODE == MEAN) { share = d / n; }
    if (MODE == SQRT_LEN_MEAN) { share = d / sqrt(n); }
    if (MODE == WEIGHTED_MEAN) { share = d * (f32(t - start + 1u) / weights); }
    dx[t * p.C + c] = select(0.0, share, t >= first);
  }
}
