// How a sum over tokens is cut into parts: the formula of part_length in train/sums.py.
// Used by linear_dweight, sum_parts.
const SHORTEST_PART: u32 = 256u;
const PART_STEP: u32 = 16u;

fn part_length() -> u32 { return max(SHORTEST_PART, (p.T + p.P * PART_STEP - 1u) / (p.P * PART_STEP) * PART_STEP); }
