// One row per sequence: the mean, maximum, ... of its tokens after the first `skip`; MODE is one of pooling_modes.wgsl.
// Grid: a workgroup per COLUMN_LANES groups of columns x and sequence y (token_lanes.wgsl). Declared in graph/ops/pooling.py.
//
// Which lane takes a token depends on its place in the sequence alone, so the order of a sum depends on nothing of the batch.
struct Params { T: u32, C: u32, B: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> skip: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

var<workgroup> partial: array<vec4<f32>, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let width = p.C / WIDE;
  let mine = group.x * COLUMN_LANES + lane % COLUMN_LANES;
  let c = min(mine, width - 1u); // lanes past the last group repeat it and store nothing
  let start = spans[group.y].x;
  let end = spans[group.y].y;
  let first = start + skip[group.y];
  var total = x[select(first, end - 1u, MODE == LAST) * width + c];
  if (MODE != CLS && MODE != LAST) {
    if (MODE != MAX) { total = vec4<f32>(); }
    for (var t = first + lane / COLUMN_LANES; t < end; t += TOKEN_LANES) {
      let v = x[t * width + c];
      if (MODE == WEIGHTED_MEAN) { total = fma(vec4<f32>(f32(t - start + 1u)), v, total); } else { total = join(total, v); }
    }
    partial[lane] = total;
    workgroupBarrier();
    for (var half = LANES / 2u; half >= COLUMN_LANES; half /= 2u) {
      if (lane < half) { partial[lane] = join(partial[lane], partial[lane + half]); }
      workgroupBarrier();
    }
    total = partial[lane % COLUMN_LANES];
  }
  let n = f32(end - first);
  if (MODE == MEAN) { total /= n; }
  if (MODE == SQRT_LEN_MEAN) { total /= sqrt(n); }
  if (MODE == WEIGHTED_MEAN) { total /= 0.5 * n * f32(first - start + 1u + end - start); } // the sum of the weights
  if (lane < COLUMN_LANES && mine < width) { out[group.y * width + mine] = total; }
}

fn join(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
  if (MODE != MAX) { return a + b; }
  return select(select(select(b, a, a > b), b, not_numbers(b)), a, not_numbers(a));
}

// is_nan.wgsl for a group of columns.
fn not_numbers(v: vec4<f32>) -> vec4<bool> {
  return (bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u);
}
