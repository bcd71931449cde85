// The gradient of a table: for each row, the sum over the tokens that took it, in token order, without atomics.
// Grid: a thread per element of the table, x over columns and y over rows. Declared in train/ops.py.
struct Params { T: u32, C: u32, V: u32, onto: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dout: array<f32>;
@group(0) @binding(2) var<storage, read> order: array<u32>;
@group(0) @binding(3) var<storage, read> rows: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> dtable: array<f32>;

@compute @workgroup_size(32, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x >= p.C || id.y >= p.V) { return; }
  var sum = 0.0;
  for (var i = rows[id.y].x; i < rows[id.y].y; i++) { sum += dout[order[i] * p.C + id.x]; }
  let at = id.y * p.C + id.x;
  if (p.onto == 1u) { dtable[at] += sum; } else { dtable[at] = sum; }
}
