// x @ weight for drivers that are CPUs underneath and unroll no loops (SwiftShader): there an array in registers is memory
// that is read and written lane by lane, so the 12 rows x 2 groups of four columns of a thread are variables of their own.
// Otherwise as matmul_registers.wgsl, with the same bits.
const TILE_T: u32 = 12u;
const TILE_N: u32 = 64u; // 8 threads side by side

// four steps of k, in ascending order
fn steps(v: vec4<f32>, w0: vec4<f32>, w1: vec4<f32>, w2: vec4<f32>, w3: vec4<f32>, sum: vec4<f32>) -> vec4<f32> {
  return fma(v.wwww, w3, fma(v.zzzz, w2, fma(v.yyyy, w1, fma(v.xxxx, w0, sum))));
}

@compute @workgroup_size(8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let k4s = p.K / 4u;
  let n4s = p.N / 4u;
  let t = id.y * TILE_T;
  let n = id.x * 2u;
  if (n >= n4s) { return; }
  let last = p.T - 1u; // rows past T repeat it, and are not stored
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

  for (var k4 = 0u; k4 < k4s; k4++) {
    let at = k4 * 4u * n4s + n;
    let wa0 = vec4<f32>(weight[at]);
    let wa1 = vec4<f32>(weight[at + n4s]);
    let wa2 = vec4<f32>(weight[at + 2u * n4s]);
    let wa3 = vec4<f32>(weight[at + 3u * n4s]);
    let wb0 = vec4<f32>(weight[at + 1u]);
    let wb1 = vec4<f32>(weight[at + n4s + 1u]);
    let wb2 = vec4<f32>(weight[at + 2u * n4s + 1u]);
    let wb3 = vec4<f32>(weight[at + 3u * n4s + 1u]);
    let x0 = vec4<f32>(x[row0 + k4]);
    a0 = steps(x0, wa0, wa1, wa2, wa3, a0);
    b0 = steps(x0, wb0, wb1, wb2, wb3, b0);
    let x1 = vec4<f32>(x[row1 + k4]);
    a1 = steps(x1, wa0, wa1, wa2, wa3, a1);
    b1 = steps(x1, wb0, wb1, wb2, wb3, b1);
    let x2 = vec4<f32>(x[row2 + k4]);
    a2 = steps(x2, wa0, wa1, wa2, wa3, a2);
    b2 = steps(x2, wb0, wb1, wb2, wb3, b2);
    let x3 = vec4<f32>(x[row3 + k4]);
    a3 = steps(x3, wa0, wa1, wa2, wa3, a3);
    b3 = steps(x3, wb0, wb1, wb2, wb3, b3);
    let x4 = vec4<f32>(x[row4 + k4]);
    a4 = steps(x4, wa0, wa1, wa2, wa3, a4);
    b4 = steps(x4, wb0, wb1, wb2, wb3, b4);
    let x5 = vec4<f32>(x[row5 + k4]);
    a5 = steps(x5, wa0, wa1, wa2, wa3, a5);
    b5 = steps(x5, wb0, wb1, wb2, wb3, b5);
    let x6 = vec4<f32>(x[row6 + k4]);
    a6 = steps(x6, wa0, wa1, wa2, wa3, a6);
    b6 = steps(x6, wb0, wb1, wb2, wb3, b6);
    let x7 = vec4<f32>(x[row7 + k4]);
    a7 = steps(x7, wa0, wa1, wa2, wa3, a7);
    b7 = steps(x7, wb0, wb1, wb2, wb3, b7);
    let x8 = vec4<f32>(x[row8 + k4]);
    a8 = steps(x8, wa0, wa1, wa2, wa3, a8);
    b8 = steps(x8, wb0, wb1, wb2, wb3, b8);
    let x9 = vec4<f32>(x[row9 + k4]);
    a9 = steps(x9, wa0, wa1, wa2, wa3, a9);
    b9 = steps(x9, wb0, wb1, wb2, wb3, b9);
    let x10 = vec4<f32>(x[row10 + k4]);
    a10 = steps(x10, wa0, wa1, wa2, wa3, a10);
    b10 = steps(x10, wb0, wb1, wb2, wb3, b10);
    let x11 = vec4<f32>(x[row11 + k4]);
    a11 = steps(x11, wa0, wa1, wa2, wa3, a11);
    b11 = steps(x11, wb0, wb1, wb2, wb3, b11);
  }
  finish(t, n, a0);
  finish(t, n + 1u, b0);
  finish(t + 1u, n, a1);
  finish(t + 1u, n + 1u, b1);
  finish(t + 2u, n, a2);
  finish(t + 2u, n + 1u, b2);
  finish(t + 3u, n, a3);
  finish(t + 3u, n + 1u, b3);
  finish(t + 4u, n, a4);
  finish(t + 4u, n + 1u, b4);
  finish(t + 5u, n, a5);
  finish(t + 5u, n + 1u, b5);
  finish(t + 6u, n, a6);
  finish(t + 6u, n + 1u, b6);
  finish(t + 7u, n, a7);
  finish(t + 7u, n + 1u, b7);
  finish(t + 8u, n, a8);
  finish(t + 8u, n + 1u, b8);
  finish(t + 9u, n, a9);
  finish(t + 9u, n + 1u, b9);
  finish(t + 10u, n, a10);
  finish(t + 10u, n + 1u, b10);
  finish(t + 11u, n, a11);
  finish(t + 11u, n + 1u, b11);
}
