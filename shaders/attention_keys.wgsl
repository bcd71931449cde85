// Which keys a query sees and which queries see a key, in the sequence from `start` to before `end`; and how a row is loaded.
// Used by attention, attention_bias, attention_dqkv, attention_lse, which set CAUSAL, WINDOW, KV_HEADS and HEAD_SIZE.
fn first_key(query: u32, start: u32) -> u32 { return select(start, max(query, start + WINDOW) - WINDOW, WINDOW > 0u); }

fn past_key(query: u32, end: u32) -> u32 {
  return select(select(end, min(query + WINDOW + 1u, end), WINDOW > 0u), query + 1u, CAUSAL == 1u);
}

fn first_query(key: u32, start: u32) -> u32 { return select(first_key(key, start), key, CAUSAL == 1u); }

fn past_query(key: u32, end: u32) -> u32 { return select(end, min(key + WINDOW + 1u, end), WINDOW > 0u); }

// How many query heads share one head of keys and values. width: columns of all query heads.
fn sharing(width: u32) -> u32 { return select(width / (max(KV_HEADS, 1u) * HEAD_SIZE), 1u, KV_HEADS == 0u); }

// Four elements of a head's row of q, k or v, which begins at `column`; zeros past the head's end.
fn load(t: u32, column: u32, d4: u32) -> vec4<f32> {
  var v = vec4<f32>();
  let at = t * p.N + column + d4 * 4u;
  for (var i = 0u; i < 4u; i++) {
    if (d4 * 4u + i < HEAD_SIZE) { v[i] = f32(qkv[at + i]); }
  }
  return v;
}
