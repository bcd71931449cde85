// The bindings of softmax attention with a bias by distance on a GPU, read four columns at a time.
// The computation and its grid are in flash_forward.wgsl. Declared in graph/ops/self_attention.py.
struct Params { T: u32, N: u32, B: u32, G: u32, H: u32, R: u32, C: u32, scale: f32 }
alias X = f32;
alias O = f32;
const WINDOW: u32 = 0u;
const KV_HEADS: u32 = 0u;
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<X>>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> tiles: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<O>>;

fn bias_of(head: u32, query: u32, key: u32) -> f32 {
  let reach = i32(p.R / 2u);
  return bias[head * p.R + u32(clamp(i32(key) - i32(query), -reach, reach) + reach)];
}

// The scores of four queries, from `query` on, with their biases.
fn biased(scores: vec4<f32>, head: u32, query: u32, key: u32) -> vec4<f32> {
  return scores + vec4<f32>(
    bias_of(head, query, key), bias_of(head, query + 1u, key), bias_of(head, query + 2u, key), bias_of(head, query + 3u, key)
  );
}
