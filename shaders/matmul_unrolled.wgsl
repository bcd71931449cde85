// x @ weight for drivers that compute on a CPU and unroll no loops (SwiftShader). Same bits as matmul_registers.wgsl.
// Grid: a thread per 12 rows x 3 groups of four columns.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
//
// Without unrolling, a local array is memory that is read and written lane by lane, so each sum is a separate variable. A
// function for the four steps of k, instead of nested fma, takes 20 % longer.
const TILE_T: u32 = 12u;
const TILE_N: u32 = 96u; // 8 threads side by side

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let k4s = p.K / 4u;
  let n4s = p.N / 4u;
  let t = id.y * TILE_T;
  let n = id.x * 3u;
  if (n >= n4s) { return; }
  let last = p.T - 1u; // rows past T repeat it and are not stored
  let row0 = min(t, last) * k4s;
  let row1 = min(t + 1u, last) * k4s;
  let row2 = min(t + 2u, last) * k4s;
  let row3 = min(t + 3u, last) * k4s;
  let row4 = min(t + 4u, last) * k4s;
  let row5 = min(t + 5u, last) * k4s;
  let row6 = min(t + 6u, last) * k4s;
  let row7 = min(t + 7u, last) * k4s;
  let row8 = min(t + 8u, last) * k4s;
  let row9 = min(t + 9u, last) * k4s;
  let row10 = min(t + 10u, last) * k4s;
  let row11 = min(t + 11u, last) * k4s;
  var a0 = vec4<f32>();
  var a1 = vec4<f32>();
  var a2 = vec4<f32>();
  var a3 = vec4<f32>();
  var a4 = vec4<f32>();
  var a5 = vec4<f32>();
  var a6 = vec4<f32>();
  var a7 = vec4<f32>();
  var a8 = vec4<f32>();
  var a9 = vec4<f32>();
  var a10 = vec4<f32>();
  var a11 = vec4<f32>();
  var b0 = vec4<f32>();
  var b1 = vec4<f32>();
  var b2 = vec4<f32>();
  var b3 = vec4<f32>();
  var b4 = vec4<f32>();
  var b5 = vec4<f32>();
  var b6 = vec4<f32>();
  var b7 = vec4<f32>();
  var b8 = vec4<f32>();
  var b9 = vec4<f32>();
  var b10 = vec4<f32>();
  var b11 = vec4<f32>();
  var c0 = vec4<f32>();
  var c1 = vec4<f32>();
  var c2 = vec4<f32>();
  var c3 = vec4<f32>();
  var c4 = vec4<f32>();
  var c5 = vec4<f32>();
  var c6 = vec4<f32>();
  var c7 = vec4<f32>();
  var c8 = vec4<f32>();
  var c9 = vec4<f32>();
  var c10 = vec4<f32>();
  var c11 = vec4<f32>();

  for (var k4 = 0u; k4 < k4s; k4++) {
    let k = 4u * k4;
    let wa0 = columns(k, n);
    let wa1 = columns(k + 1u, n);
    let wa2 = columns(k + 2u, n);
    let wa3 = columns(k + 3u, n);
    let wb0 = columns(k, n + 1u);
    let wb1 = columns(k + 1u, n + 1u);
    let wb2 = columns(k + 2u, n + 1u);
    let wb3 = columns(k + 3u, n + 1u);
    let wc0 = columns(k, n + 2u);
    let wc1 = columns(k + 1u, n + 2u);
    let wc2 = columns(k + 2u, n + 2u);
    let wc3 = columns(k + 3u, n + 2u);
    let x0 = vec4<f32>(x[row0 + k4]);
    a0 = fma(x0.wwww, wa3, fma(x0.zzzz, wa2, fma(x0.yyyy, wa1, fma(x0.xxxx, wa0, a0))));
    b0 = fma(x0.wwww, wb3, fma(x0.zzzz, wb2, fma(x0.yyyy, wb1, fma(x0.xxxx, wb0, b0))));
    c0 = fma(x0.wwww, wc3, fma(x0.zzzz, wc2, fma(x0.yyyy, wc1, fma(x0.xxxx, wc0, c0))));
    let x1 = vec4<f32>(x[row1 + k4]);
    a1 = fma(x1.wwww, wa3, fma(x1.zzzz, wa2, fma(x1.yyyy, wa1, fma(x1.xxxx, wa0, a1))));
    b1 = fma(x1.wwww, wb3, fma(x1.zzzz, wb2, fma(x1.yyyy, wb1, fma(x1.xxxx, wb0, b1))));
    c1 = fma(x1.wwww, wc3, fma(x1.zzzz, wc2, fma(x1.yyyy, wc1, fma(x1.xxxx, wc0, c1))));
    let x2 = vec4<f32>(x[row2 + k4]);
    a2 = fma(x2.wwww, wa3, fma(x2.zzzz, wa2, fma(x2.yyyy, wa1, fma(x2.xxxx, wa0, a2))));
    b2 = fma(x2.wwww, wb3, fma(x2.zzzz, wb2, fma(x2.yyyy, wb1, fma(x2.xxxx, wb0, b2))));
    c2 = fma(x2.wwww, wc3, fma(x2.zzzz, wc2, fma(x2.yyyy, wc1, fma(x2.xxxx, wc0, c2))));
    let x3 = vec4<f32>(x[row3 + k4]);
    a3 = fma(x3.wwww, wa3, fma(x3.zzzz, wa2, fma(x3.yyyy, wa1, fma(x3.xxxx, wa0, a3))));
    b3 = fma(x3.wwww, wb3, fma(x3.zzzz, wb2, fma(x3.yyyy, wb1, fma(x3.xxxx, wb0, b3))));
    c3 = fma(x3.wwww, wc3, fma(x3.zzzz, wc2, fma(x3.yyyy, wc1, fma(x3.xxxx, wc0, c3))));
    let x4 = vec4<f32>(x[row4 + k4]);
    a4 = fma(x4.wwww, wa3, fma(x4.zzzz, wa2, fma(x4.yyyy, wa1, fma(x4.xxxx, wa0, a4))));
    b4 = fma(x4.wwww, wb3, fma(x4.zzzz, wb2, fma(x4.yyyy, wb1, fma(x4.xxxx, wb0, b4))));
    c4 = fma(x4.wwww, wc3, fma(x4.zzzz, wc2, fma(x4.yyyy, wc1, fma(x4.xxxx, wc0, c4))));
    let x5 = vec4<f32>(x[row5 + k4]);
    a5 = fma(x5.wwww, wa3, fma(x5.zzzz, wa2, fma(x5.yyyy, wa1, fma(x5.xxxx, wa0, a5))));
    b5 = fma(x5.wwww, wb3, fma(x5.zzzz, wb2, fma(x5.yyyy, wb1, fma(x5.xxxx, wb0, b5))));
    c5 = fma(x5.wwww, wc3, fma(x5.zzzz, wc2, fma(x5.yyyy, wc1, fma(x5.xxxx, wc0, c5))));
    let x6 = vec4<f32>(x[row6 + k4]);
    a6 = fma(x6.wwww, wa3, fma(x6.zzzz, wa2, fma(x6.yyyy, wa1, fma(x6.xxxx, wa0, a6))));
    b6 = fma(x6.wwww, wb3, fma(x6.zzzz, wb2, fma(x6.yyyy, wb1, fma(x6.xxxx, wb0, b6))));
    c6 = fma(x6.wwww, wc3, fma(x6.zzzz, wc2, fma(x6.yyyy, wc1, fma(x6.xxxx, wc0, c6))));
    let x7 = vec4<f32>(x[row7 + k4]);
    a7 = fma(x7.wwww, wa3, fma(x7.zzzz, wa2, fma(x7.yyyy, wa1, fma(x7.xxxx, wa0, a7))));
    b7 = fma(x7.wwww, wb3, fma(x7.zzzz, wb2, fma(x7.yyyy, wb1, fma(x7.xxxx, wb0, b7))));
    c7 = fma(x7.wwww, wc3, fma(x7.zzzz, wc2, fma(x7.yyyy, wc1, fma(x7.xxxx, wc0, c7))));
    let x8 = vec4<f32>(x[row8 + k4]);
    a8 = fma(x8.wwww, wa3, fma(x8.zzzz, wa2, fma(x8.yyyy, wa1, fma(x8.xxxx, wa0, a8))));
    b8 = fma(x8.wwww, wb3, fma(x8.zzzz, wb2, fma(x8.yyyy, wb1, fma(x8.xxxx, wb0, b8))));
    c8 = fma(x8.wwww, wc3, fma(x8.zzzz, wc2, fma(x8.yyyy, wc1, fma(x8.xxxx, wc0, c8))));
    let x9 = vec4<f32>(x[row9 + k4]);
    a9 = fma(x9.wwww, wa3, fma(x9.zzzz, wa2, fma(x9.yyyy, wa1, fma(x9.xxxx, wa0, a9))));
    b9 = fma(x9.wwww, wb3, fma(x9.zzzz, wb2, fma(x9.yyyy, wb1, fma(x9.xxxx, wb0, b9))));
    c9 = fma(x9.wwww, wc3, fma(x9.zzzz, wc2, fma(x9.yyyy, wc1, fma(x9.xxxx, wc0, c9))));
    let x10 = vec4<f32>(x[row10 + k4]);
    a10 = fma(x10.wwww, wa3, fma(x10.zzzz, wa2, fma(x10.yyyy, wa1, fma(x10.xxxx, wa0, a10))));
    b10 = fma(x10.wwww, wb3, fma(x10.zzzz, wb2, fma(x10.yyyy, wb1, fma(x10.xxxx, wb0, b10))));
    c10 = fma(x10.wwww, wc3, fma(x10.zzzz, wc2, fma(x10.yyyy, wc1, fma(x10.xxxx, wc0, c10))));
    let x11 = vec4<f32>(x[row11 + k4]);
    a11 = fma(x11.wwww, wa3, fma(x11.zzzz, wa2, fma(x11.yyyy, wa1, fma(x11.xxxx, wa0, a11))));
    b11 = fma(x11.wwww, wb3, fma(x11.zzzz, wb2, fma(x11.yyyy, wb1, fma(x11.xxxx, wb0, b11))));
    c11 = fma(x11.wwww, wc3, fma(x11.zzzz, wc2, fma(x11.yyyy, wc1, fma(x11.xxxx, wc0, c11))));
  }
  finish(t, n, a0);
  finish(t, n + 1u, b0);
  finish(t, n + 2u, c0);
  finish(t + 1u, n, a1);
  finish(t + 1u, n + 1u, b1);
  finish(t + 1u, n + 2u, c1);
  finish(t + 2u, n, a2);
  finish(t + 2u, n + 1u, b2);
  finish(t + 2u, n + 2u, c2);
  finish(t + 3u, n, a3);
  finish(t + 3u, n + 1u, b3);
  finish(t + 3u, n + 2u, c3);
  finish(t + 4u, n, a4);
  finish(t + 4u, n + 1u, b4);
  finish(t + 4u, n + 2u, c4);
  finish(t + 5u, n, a5);
  finish(t + 5u, n + 1u, b5);
  finish(t + 5u, n + 2u, c5);
  finish(t + 6u, n, a6);
  finish(t + 6u, n + 1u, b6);
  finish(t + 6u, n + 2u, c6);
  finish(t + 7u, n, a7);
  finish(t + 7u, n + 1u, b7);
  finish(t + 7u, n + 2u, c7);
  finish(t + 8u, n, a8);
  finish(t + 8u, n + 1u, b8);
  finish(t + 8u, n + 2u, c8);
  finish(t + 9u, n, a9);
  finish(t + 9u, n + 1u, b9);
  finish(t + 9u, n + 2u, c9);
  finish(t + 10u, n, a10);
  finish(t + 10u, n + 1u, b10);
  finish(t + 10u, n + 2u, c10);
  finish(t + 11u, n, a11);
  finish(t + 11u, n + 1u, b11);
  finish(t + 11u, n + 2u, c11);
}
