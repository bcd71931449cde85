// x @ weight with four neighbouring columns a thread: a load of x serves four multiply-adds, and four weights come in one load.
// Grid: a thread per four columns, x over columns and y over tokens.
// A rung of the ladder of matmuls; linear.wgsl declares the bindings, `columns` and `finish`.
const TILE_T: u32 = 1u;
const TILE_N: u32 = 256u; // 64 threads side by side

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.N / 4u || id.y >= p.T) { return; }
  let row = id.y * (p.K / 4u);
  var sum = vec4<f32>();
  for (var k4 = 0u; k4 < p.K / 4u; k4++) {
    let v = vec4<f32>(x[row + k4]);
    sum = fma(vec4<f32>(v.x), columns(4u * k4, id.x), sum);
    sum = fma(vec4<f32>(v.y), columns(4u * k4 + 1u, id.x), sum);
    sum = fma(vec4<f32>(v.z), columns(4u * k4 + 2u, id.x), sum);
    sum = fma(vec4<f32>(v.w), columns(4u * k4 + 3u, id.x), sum);
  }
  finish(id.y, id.x, sum);
}
