// The order in which a GPU's matmul takes tiles, and that in which it adds up k.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
const TALL: u32 = 8u; // rows of tiles

// The tile (column, row) of a workgroup, whose numbers ascend along x first: column by column within TALL rows of tiles, so that
// workgroups that run at the same time share weights and rows, and these stay in a small cache.
fn tile_order(group: vec2<u32>) -> vec2<u32> {
  let wide = (p.N + TILE_N - 1u) / TILE_N;
  let high = (p.T + TILE_T - 1u) / TILE_T;
  let first = group.y / TALL * TALL;
  let tall = min(TALL, high - first);
  let at = (group.y - first) * wide + group.x;
  return vec2(at / tall, first + at % tall);
}

// How many groups of four k are added up by themselves, ascending; the sums of these PARTS are added in their order. It depends
// on K alone, so that a row has the same bits in every batch, while the parts of a short text are computed at the same time.
fn part_length() -> u32 { return (p.K + 64u * PARTS - 1u) / (64u * PARTS) * 16u; }
