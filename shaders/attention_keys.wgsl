// Which keys a query sees and which queries see a key, in the sequence from `start` to before `end`.
// Used by attention, attention_bias, attention_dqkv, attention_lse, which set CAUSAL, WINDOW, KV_HEADS and HEAD_SIZE.
fn first_key(query: u32, start: u32) -> u32 { return select(start, max(query, start + WINDOW) - WINDOW, WINDOW > 0u); }

fn past_key(query: u32, end: u32) -> u32 {
  return select(select(end, min(query + WINDOW + 1u, end), WINDOW > 0u), query + 1u, CAUSAL == 1u);
}

fn first_query(key: u32, start: u32) -> u32 { return select(first_key(key, start), key, CAUSAL == 1u); }

fn past_query(key: u32, end: u32) -> u32 { return select(end, min(key + WINDOW + 1u, end), WINDOW > 0u); }

// How many query heads share one head of keys and values. width: columns of all query heads.
fn sharing(width: u32) -> u32 { return select(width / (max(KV_HEADS, 1u) * HEAD_SIZE), 1u, KV_HEADS == 0u); }

fn sees(query: u32, key: u32, start: u32, end: u32) -> bool { return key >= first_key(query, start) && key < past_key(query, end); }

// Whether each of four queries, from `query` on, sees a key.
fn four_see(query: u32, key: u32, start: u32, end: u32) -> vec4<bool> {
  return vec4<bool>(
    sees(query, key, start, end), sees(query + 1u, key, start, end), sees(query + 2u, key, start, end), sees(query + 3u, key, start, end)
  );
}

// Whether a query sees each of four keys, from `key` on. False for queries past the end.
fn four_seen(query: u32, key: u32, start: u32, end: u32) -> vec4<bool> {
  let real = query < end;
  return vec4<bool>(
    real && sees(query, key, start, end),
    real && sees(query, key + 1u, start, end),
    real && sees(query, key + 2u, start, end),
    real && sees(query, key + 3u, start, end),
  );
}
