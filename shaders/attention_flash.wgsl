// The bindings of softmax attention on a GPU, read four columns at a time: over all tokens, in a window, or with shared keys.
// The computation and its grid are in flash_forward.wgsl. Declared in graph/ops/self_attention.py.
struct Params { T: u32, N: u32, B: u32, G: u32, C: u32, scale: f32 }
alias X = f32;
alias O = f32;
const WINDOW: u32 = 0u; // a query sees keys at most this far away; 0: all
const KV_HEADS: u32 = 0u; // heads of keys and values; 0: as many as query heads
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<X>>;
@group(0) @binding(2) var<storage, read> spans: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> tiles: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<O>>;

fn biased(scores: vec4<f32>, head: u32, query: u32, key: u32) -> vec4<f32> { return scores; }
