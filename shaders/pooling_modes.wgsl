// The modes of pooling, numbered as POOLINGS in graph/ops/pooling.py.
// Used by pool, pool_dx.
const MEAN: u32 = 0u;
const CLS: u32 = 1u;
const MAX: u32 = 2u;
const LAST: u32 = 3u;
const WEIGHTED_MEAN: u32 = 4u;
const SQRT_LEN_MEAN: u32 = 5u;
const MODE: u32 = MEAN;
