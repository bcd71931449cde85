// x @ weight for drivers that compute on a CPU: a large tile in one thread's registers, so each loaded value is used often.
// Grid: a thread per THREAD_ROWS rows x 4 groups of four columns.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
//
// It stages nothing: on such a driver workgroup memory is ordinary memory. Rows past T repeat the last one, columns past N are
// read from the padding of the buffers; neither is stored. The four steps of k are written out: with a loop
// for them the driver stops unrolling, and takes ten times as long.
const TILE_T: u32 = 16u;
const TILE_N: u32 = 128u; // 8 threads side by side
const THREAD_ROWS: u32 = 16u;

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let k4s = p.K / 4u;
  let n4s = p.N / 4u;
  let t = id.y * THREAD_ROWS;
  let n = id.x * 4u;
  if (n >= n4s) { return; }
  var row: array<u32, THREAD_ROWS>; // where each row begins; rows past T repeat the last one and are not stored
  for (var r = 0u; r < THREAD_ROWS; r++) { row[r] = min(t + r, p.T - 1u) * k4s; }
  var a: array<vec4<f32>, THREAD_ROWS>;
  var b: array<vec4<f32>, THREAD_ROWS>;
  var c: array<vec4<f32>, THREAD_ROWS>;
  var d: array<vec4<f32>, THREAD_ROWS>;

  for (var k4 = 0u; k4 < k4s; k4++) {
    var rows: array<vec4<f32>, THREAD_ROWS>;
    for (var r = 0u; r < THREAD_ROWS; r++) { rows[r] = vec4<f32>(x[row[r] + k4]); }
    var k = 4u * k4;
    var wa = columns(k, n);
    var wb = columns(k, n + 1u);
    var wc = columns(k, n + 2u);
    var wd = columns(k, n + 3u);
    for (var r = 0u; r < THREAD_ROWS; r++) {
      let v = vec4<f32>(rows[r].x);
      a[r] = fma(v, wa, a[r]);
      b[r] = fma(v, wb, b[r]);
      c[r] = fma(v, wc, c[r]);
      d[r] = fma(v, wd, d[r]);
    }
    k++;
    wa = columns(k, n);
    wb = columns(k, n + 1u);
    wc = columns(k, n + 2u);
    wd = columns(k, n + 3u);
    for (var r = 0u; r < THREAD_ROWS; r++) {
      let v = vec4<f32>(rows[r].y);
      a[r] = fma(v, wa, a[r]);
      b[r] = fma(v, wb, b[r]);
      c[r] = fma(v, wc, c[r]);
      d[r] = fma(v, wd, d[r]);
    }
    k++;
    wa = columns(k, n);
    wb = columns(k, n + 1u);
    wc = columns(k, n + 2u);
    wd = columns(k, n + 3u);
    for (var r = 0u; r < THREAD_ROWS; r++) {
      let v = vec4<f32>(rows[r].z);
      a[r] = fma(v, wa, a[r]);
      b[r] = fma(v, wb, b[r]);
      c[r] = fma(v, wc, c[r]);
      d[r] = fma(v, wd, d[r]);
    }
    k++;
    wa = columns(k, n);
    wb = columns(k, n + 1u);
    wc = columns(k, n + 2u);
    wd = columns(k, n + 3u);
    for (var r = 0u; r < THREAD_ROWS; r++) {
      let v = vec4<f32>(rows[r].w);
      a[r] = fma(v, wa, a[r]);
      b[r] = fma(v, wb, b[r]);
      c[r] = fma(v, wc, c[r]);
      d[r] = fma(v, wd, d[r]);
    }
  }
  for (var r = 0u; r < THREAD_ROWS; r++) {
    finish(t + r, n, a[r]);
    finish(t + r, n + 1u, b[r]);
    finish(t + r, n + 2u, c[r]);
    finish(t + r, n + 3u, d[r]);
  }
}
