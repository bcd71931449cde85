// Each token's share of the gradient of its sequence's row; MODE is one of pooling_modes.wgsl.
// Grid: a workgroup per COLUMN_LANES groups of columns x and sequence y (token_lanes.wgsl). Declared in train/ops.py.
struct Params { T: u32, C: u32, B: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> dout: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read> skip: array<u32>;
@group(0) @binding(5) var<storage, read_write> dx: array<vec4<f32>>;

var<workgroup> largest: array<vec4<f32>, LANES>;
var<workgroup> largest_at: array<vec4<u32>, LANES>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let width = p.C / WIDE;
  let mine = group.x * COLUMN_LANES + lane % COLUMN_LANES;
  let c = min(mine, width - 1u);
  let start = spans[group.y].x;
  let end = spans[group.y].y;
  let first = start + skip[group.y];
  var chosen = vec4<u32>(select(first, end - 1u, MODE == LAST)); // the token that gets the whole gradient
  if (MODE == MAX) {
    var most = x[first * width + c];
    for (var t = first + lane / COLUMN_LANES; t < end; t += TOKEN_LANES) {
      let v = x[t * width + c];
      chosen = select(chosen, vec4<u32>(t), v > most);
      most = select(most, v, v > most);
    }
    largest[lane] = most;
    largest_at[lane] = chosen;
    workgroupBarrier();
    for (var half = LANES / 2u; half >= COLUMN_LANES; half /= 2u) {
      if (lane < half) {
        let v = largest[lane + half];
        let t = largest_at[lane + half];
        let better = (v > largest[lane]) | ((v == largest[lane]) & (t < largest_at[lane])); // of equal ones the first
        largest[lane] = select(largest[lane], v, better);
        largest_at[lane] = select(largest_at[lane], t, better);
      }
      workgroupBarrier();
    }
    chosen = largest_at[lane % COLUMN_LANES];
  }
  if (mine >= width) { return; }
  let d = dout[group.y * width + c];
  let n = f32(end - first);
  let weights = 0.5 * n * f32(first - start + 1u + end - start); // the sum of WEIGHTED_MEAN's weights
  for (var t = start + lane / COLUMN_LANES; t < end; t += TOKEN_LANES) {
    var share = select(vec4<f32>(), d, chosen == vec4<u32>(t));
    if (MODE == MEAN) { share = d / n; }
    if (MODE == SQRT_LEN_MEAN) { share = d / sqrt(n); }
    if (MODE == WEIGHTED_MEAN) { share = d * (f32(t - start + 1u) / weights); }
    if (t < first) { share = vec4<f32>(); }
    dx[t * width + c] = share;
  }
}
