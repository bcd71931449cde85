// activation(a) * b, where a row is a|b; the formulas are in activation.wgsl.
// Grid: a thread per element, x over columns and y over tokens. Declared in graph/ops/activations.py.
struct Params { T: u32, N: u32 }
alias X = f32;
alias O = f32;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<X>;
@group(0) @binding(2) var<storage, read_write> out: array<O>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.N) { return; }
  let at = 2u * id.y * p.N + id.x;
  out[id.y * p.N + id.x] = O(activate(f32(x[at])) * f32(x[at + p.N]));
}
