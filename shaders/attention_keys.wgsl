// Which keys a query sees and which queries see a key, in a sequence from `start` to before `end`; shared by the kernels of
// attention, which set CAUSAL, WINDOW, KV_HEADS and HEAD_SIZE.
fn first_key(query: u32, start: u32) -> u32 { return select(start, max(query, start + WINDOW) - WINDOW, WINDOW > 0u); }

fn past_key(query: u32, end: u32) -> u32 {
  return select(select(end, min(query + WINDOW + 1u, end), WINDOW > 0u), query + 1u, CAUSAL == 1u);
}

fn first_query(key: u32, start: u32) -> u32 { return select(first_key(key, start), key, CAUSAL == 1u); }

fn past_query(key: u32, end: u32) -> u32 { return select(end, min(key + WINDOW + 1u, end), WINDOW > 0u); }

// How many heads of queries, together `width` wide, share one of keys and values.
fn sharing(width: u32) -> u32 { return select(width / (max(KV_HEADS, 1u) * HEAD_SIZE), 1u, KV_HEADS == 0u); }
