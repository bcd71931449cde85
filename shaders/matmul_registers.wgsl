// x @ weight for devices that are CPUs underneath: no workgroup memory (it is ordinary memory there), but a large tile
// of 16 rows x 4 groups of four columns held in the registers of one thread, so each value loaded is used 16 times.
// Rows past T and columns past N are read from the padding of the buffers and not stored.
// The four steps of k are written out: with a loop the driver no longer unrolls, and the rate falls to a tenth.
const TILE_T: u32 = 16u;
const TILE_N: u32 = 128u; // 8 threads side by side
const ROWS: u32 = 16u;

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let k4s = p.K / 4u;
  let n4s = p.N / 4u;
  let t = id.y * ROWS;
  let n = id.x * 4u;
  if (n >= n4s) { return; }
  var a: array<vec4<f32>, ROWS>;
  var b: array<vec4<f32>, ROWS>;
  var c: array<vec4<f32>, ROWS>;
  var d: array<vec4<f32>, ROWS>;

  for (var k4 = 0u; k4 < k4s; k4++) {
    var rows: array<vec4<f32>, ROWS>;
    for (var r = 0u; r < ROWS; r++) { rows[r] = vec4<f32>(x[(t + r) * k4s + k4]); }
    var at = k4 * 4u * n4s + n;
    var wa = vec4<f32>(weight[at]);
    var wb = vec4<f32>(weight[at + 1u]);
    var wc = vec4<f32>(weight[at + 2u]);
    var wd = vec4<f32>(weight[at + 3u]);
    for (var r = 0u; r < ROWS; r++) {
      let v = vec4<f32>(rows[r].x);
      a[r] = fma(v, wa, a[r]);
      b[r] = fma(v, wb, b[r]);
      c[r] = fma(v, wc, c[r]);
      d[r] = fma(v, wd, d[r]);
    }
    at += n4s;
    wa = vec4<f32>(weight[at]);
    wb = vec4<f32>(weight[at + 1u]);
    wc = vec4<f32>(weight[at + 2u]);
    wd = vec4<f32>(weight[at + 3u]);
    for (var r = 0u; r < ROWS; r++) {
      let v = vec4<f32>(rows[r].y);
      a[r] = fma(v, wa, a[r]);
      b[r] = fma(v, wb, b[r]);
      c[r] = fma(v, wc, c[r]);
      d[r] = fma(v, wd, d[r]);
    }
    at += n4s;
    wa = vec4<f32>(weight[at]);
    wb = vec4<f32>(weight[at + 1u]);
    wc = vec4<f32>(weight[at + 2u]);
    wd = vec4<f32>(weight[at + 3u]);
    for (var r = 0u; r < ROWS; r++) {
      let v = vec4<f32>(rows[r].z);
      a[r] = fma(v, wa, a[r]);
      b[r] = fma(v, wb, b[r]);
      c[r] = fma(v, wc, c[r]);
      d[r] = fma(v, wd, d[r]);
    }
    at += n4s;
    wa = vec4<f32>(weight[at]);
    wb = vec4<f32>(weight[at + 1u]);
    wc = vec4<f32>(weight[at + 2u]);
    wd = vec4<f32>(weight[at + 3u]);
    for (var r = 0u; r < ROWS; r++) {
      let v = vec4<f32>(rows[r].w);
      a[r] = fma(v, wa, a[r]);
      b[r] = fma(v, wb, b[r]);
      c[r] = fma(v, wc, c[r]);
      d[r] = fma(v, wd, d[r]);
    }
  }
  for (var r = 0u; r < ROWS; r++) {
    finish(t + r, n, a[r]);
    finish(t + r, n + 1u, b[r]);
    finish(t + r, n + 2u, c[r]);
    finish(t + r, n + 3u, d[r]);
  }
}
