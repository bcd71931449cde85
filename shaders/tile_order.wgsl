// The order in which workgroups take the tiles of a product: column by column within 8 rows of tiles, so that workgroups that
// run at the same time share weights and rows, and these stay in a small cache.
// Used by linear, linear_add, linear_add_int8, linear_int8, matmul.
const TALL: u32 = 8u; // rows of tiles

// The tile (column, row) of a workgroup, whose numbers ascend along x first.
fn tile_order(group: vec2<u32>) -> vec2<u32> {
  let wide = (p.N + TILE_N - 1u) / TILE_N;
  let high = (p.T + TILE_T - 1u) / TILE_T;
  let first = group.y / TALL * TALL;
  let tall = min(TALL, high - first);
  let at = (group.y - first) * wide + group.x;
  return vec2(at / tall, first + at % tall);
}
