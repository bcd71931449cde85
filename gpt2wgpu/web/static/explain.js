// Why two texts are alike: their cosine as an exact sum over pairs of tokens, as gpt2wgpu/explain does it in Python.
//
// Where pooling is linear a vector u is a sum of rows, one for each token, and so cos(a, b) = sum of <row, row'> / (|u_a| |u_b|).

import { packBatch } from './batch.js';
import { EngineError } from './errors.js';
import { compilePlain } from './plain.js';

const programs = new WeakMap(); // engine -> its graph on the CPU, whose hidden states can be read

/** What of each row is in the vector, from the pooling's own weights: a function of the number of tokens. */
const WEIGHTS = {
  mean: (n) => Array(n).fill(1 / n),
  sqrt_len_mean: (n) => Array(n).fill(1 / Math.sqrt(n)),
  weighted_mean: (n) => Array.from({ length: n }, (_, t) => (2 * (t + 1)) / (n * (n + 1))),
  cls: (n) => Array.from({ length: n }, (_, t) => Number(t === 0)),
  last: (n) => Array.from({ length: n }, (_, t) => Number(t === n - 1)),
};

/**
 * The pooling of a graph, if a vector is a sum over its tokens: one linear pooling, and after it at most a scaling to length 1.
 * @returns {{ mode: string, states: number, pooled: number } | null} the indices of the tensors before and after it
 */
export function findPooling({ tensors, output }) {
  const pooled = tensors[output].op === 'l2_normalize' ? tensors[output].inputs[0] : output;
  const { op, inputs, attrs } = tensors[pooled];
  return op === 'pool' && attrs.mode in WEIGHTS ? { mode: attrs.mode, states: inputs[0], pooled } : null;
}

/**
 * pairs: what the cosine has of each token of a with each of b. shares: the sums of its rows, and of its columns. All of them add
 * up to the cosine.
 * @param {import('./engine.js').Engine} engine
 * @returns {Promise<{ cosine: number, texts: { tokens: string[], shares: number[] }[], pairs: number[][] }>}
 * @throws {EngineError} if the model's pooling is not linear
 */
export async function explainPair(engine, a, b) {
  const pooling = findPooling(engine.form);
  if (!pooling) throw new EngineError('the vectors of this model are no sums over tokens: gpt2wgpu explain shows more in Python');
  if (!programs.has(engine)) programs.set(engine, engine.weights().then((weights) => compilePlain(engine.form, weights)));
  const program = await programs.get(engine);
  const texts = [a, b].map((text) => engine.tokenize(text));
  const rows = texts.map(({ ids }) => {
    const { kept } = program.run(packBatch([ids], [0], engine.positionPad), [pooling.states]);
    return weightedRows(kept.get(pooling.states), WEIGHTS[pooling.mode](ids.length));
  });
  const [lengthA, lengthB] = rows.map((parts) => Math.sqrt(dot(sumRows(parts), sumRows(parts))));
  const scale = 1 / Math.max(lengthA * lengthB, 1e-24);
  const pairs = rows[0].map((x) => rows[1].map((y) => dot(x, y) * scale));
  const shares = [pairs.map(sum), pairs[0].map((_, j) => sum(pairs.map((row) => row[j])))];
  const cosine = dot(sumRows(rows[0]), sumRows(rows[1])) * scale;
  return { cosine, texts: texts.map(({ tokens }, i) => ({ tokens, shares: shares[i] })), pairs };
}

const sum = (numbers) => numbers.reduce((total, x) => total + x, 0);
const dot = (x, y) => x.reduce((total, v, i) => total + v * y[i], 0);
const sumRows = (rows) => rows.reduce((total, row) => total.map((x, i) => x + row[i]), new Float64Array(rows[0].length));

/** @param {Float32Array} states (T, C) @param {number[]} weights (T) */
function weightedRows(states, weights) {
  const width = states.length / weights.length;
  return weights.map((weight, t) => Float64Array.from(states.subarray(t * width, (t + 1) * width), (x) => x * weight));
}
