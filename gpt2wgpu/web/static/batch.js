// Sequences of token ids become packed batches: they lie end to end on one token axis, without padding.

const QUERY_TILE = 32; // queries per workgroup of the attention kernels

/**
 * The arrays of one batch, as the graph names them, and its sizes: T tokens, B sequences, G query tiles.
 * ids, positions, types (T): of each token. spans (B, 2): first and one-past-last token of each sequence. tiles (G, 2): a sequence
 * and the first query of a tile in it. skip (B): leading tokens that pooling leaves out.
 * @param {ArrayLike<number>[]} sequences token ids, none empty
 * @param {number[]} skips
 * @param {number | null} pad an id: positions count from pad + 1 over all other ids, as in RoBERTa
 */
export function packBatch(sequences, skips, pad) {
  const T = sequences.reduce((sum, ids) => sum + ids.length, 0);
  const B = sequences.length;
  const G = sequences.reduce((sum, ids) => sum + Math.ceil(ids.length / QUERY_TILE), 0);
  const arrays = {
    ids: new Uint32Array(T),
    positions: new Uint32Array(T),
    types: new Uint32Array(T),
    spans: new Uint32Array(2 * B),
    tiles: new Uint32Array(2 * G),
    skip: Uint32Array.from(sequences, (ids, b) => Math.min(skips[b], ids.length - 1)),
  };
  let at = 0;
  let tile = 0;
  sequences.forEach((ids, b) => {
    arrays.ids.set(ids, at);
    arrays.spans.set([at, at + ids.length], 2 * b);
    for (let first = 0; first < ids.length; first += QUERY_TILE) arrays.tiles.set([b, first], 2 * tile++);
    let counted = 0;
    for (const id of ids) arrays.positions[at++] = pad === null ? counted++ : id === pad ? pad : pad + ++counted;
  });
  return { arrays, sizes: { T, B, G } };
}

/**
 * Which sequences share a batch of at most so many tokens, the longest first; a longer one is a batch of its own.
 * @param {number[]} lengths
 * @returns {number[][]}
 */
export function planBatches(lengths, maxTokens, maxSequences) {
  const batches = [];
  let tokens = 0;
  for (const i of [...lengths.keys()].sort((a, b) => lengths[b] - lengths[a] || a - b)) {
    if (!batches.length || tokens + lengths[i] > maxTokens || batches.at(-1).length === maxSequences) {
      batches.push([]);
      tokens = 0;
    }
    batches.at(-1).push(i);
    tokens += lengths[i];
  }
  return batches;
}
