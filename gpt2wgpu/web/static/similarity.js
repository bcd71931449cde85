// How alike vectors are, by the four measures of Python.

import { EngineError } from './errors.js';
import { checkChoice } from './options.js';

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
export const METRICS = {
  dot,
  cosine: (a, b) => dot(a, b) / Math.max(Math.sqrt(dot(a, a) * dot(b, b)), 1e-24),
  euclidean: (a, b) => -Math.sqrt(a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0)),
  manhattan: (a, b) => -a.reduce((sum, x, i) => sum + Math.abs(x - b[i]), 0),
};

const isVector = (v) => ArrayBuffer.isView(v) || (Array.isArray(v) && typeof v[0] === 'number');

/** The vectors of an argument: itself, or those in it. Throws EngineError. */
function rowsOf(name, value) {
  const rows = isVector(value) ? [value] : value;
  if (Array.isArray(rows) && rows.every((row) => isVector(row) && row.length)) return rows;
  const advice = value instanceof Promise ? ', not a promise: await it first' : '';
  throw new EngineError(`${name} must be a vector or an array of vectors, each with numbers in it${advice}`);
}

/** How alike vectors are, higher is closer: a number for two vectors, rows of numbers for two lists. */
export function similarity(a, b, metric = 'cosine') {
  checkChoice('metric', metric, Object.keys(METRICS));
  const [left, right] = [rowsOf('a', a), rowsOf('b', b)];
  const all = [...left, ...right];
  const odd = all.find((v) => v.length !== all[0].length);
  if (odd) throw new EngineError(`vectors must have one length, not ${all[0].length} and ${odd.length}`);
  const rows = left.map((x) => right.map((y) => METRICS[metric](x, y)));
  if (isVector(a)) return isVector(b) ? rows[0][0] : rows[0];
  return isVector(b) ? rows.map((row) => row[0]) : rows;
}
