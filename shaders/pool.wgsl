// One row per sequence: the mean, maximum, ... of its tokens after the first `skip`; MODE is one of pooling_modes.wgsl.
// Grid: a thread per element, x over columns and y over sequences; it loops over the tokens. Declared in graph/ops/pooling.py.
struct Params { T: u32, C: u32, B: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> skip: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let c = id.x;
  if (c >= p.C) { return; }
  let start = spans[id.y].x;
  let end = spans[id.y].y;
  let first = start + skip[id.y];
  let n = f32(end - first);
  var total = 0.0;
  if (MODE == CLS) {
    total = x[first * p.C + c];
  } else if (MODE == LAST) {
    total = x[(end - 1u) * p.C + c];
  } else if (MODE == MAX) {
    total = x[first * p.C + c];
    for (var t = first + 1u; t < end; t++) {
      let both = total + x[t * p.C + c];
      total = select(max(total, x[t * p.C + c]), both, is_nan(both));
    }
  } else if (MODE == WEIGHTED_MEAN) {
    var weights = 0.0;
    for (var t = first; t < end; t++) {
      let weight = f32(t - start + 1u);
      total = fma(weight, x[t * p.C + c], total);
      weights += weight;
    }
    total /= weights;
  } else {
    for (var t = first; t < end; t++) { total += x[t * p.C + c]; }
    total /= select(n, sqrt(n), MODE == SQRT_LEN_MEAN);
  }
  out[id.y * p.C + c] = total;
}
