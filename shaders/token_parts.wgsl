// How a sum over tokens is cut into parts: the formula of part_length in train/sums.py.
// Used by layer_norm_dweight, linear_dweight, sum_parts, sum_rows, sum_vectors.
const SHORTEST_PART: u32 = 256u;
const PART_STEP: u32 = 16u;

fn part_length() -> u32 { return max(SHORTEST_PART, (p.T + p.P * PART_STEP - 1u) / (p.P * PART_STEP) * PART_STEP); }

fn part_count() -> u32 { return (p.T + part_length() - 1u) / part_length(); }

// The first token of a part, and the one past its last.
fn tokens_of(part: u32) -> vec2<u32> { return min(vec2(part, part + 1u) * part_length(), vec2(p.T)); }
