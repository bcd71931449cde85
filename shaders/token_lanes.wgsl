// The lanes of a workgroup that goes through tokens: TOKEN_LANES of them take tokens side by side, for each of COLUMN_LANES
// groups of columns. A tree combines what they found. gpu/rows.py sets the numbers.
// Used by layer_norm_dweight, pool, pool_dx, sum_rows, sum_vectors.
const COLUMN_LANES: u32 = 4u;
const TOKEN_LANES: u32 = 64u;
const LANES: u32 = COLUMN_LANES * TOKEN_LANES;
