// The weights: downloaded once, kept in the browser's cache under the export's hash, handed out tensor by tensor.

import { EngineError } from './errors.js';
import { checkDigest, fetchFile, parseJson } from './files.js';

const PREFIX = 'gpt2wgpu';
const HEADER = 'header of weights.safetensors'; // in the digests of engine.json

/**
 * Every tensor of a safetensors file, in the order in which they arrive; one at a time is in memory.
 * @param {string} url of the file
 * @param {{ bytes: number, hash: string, digests: Record<string, string>, cache: boolean, note: (text: string) => void,
 *   progress: (loaded: number, total: number, cached: boolean) => void }} about
 * @returns {AsyncGenerator<{ name: string, dtype: string, shape: number[], data: Uint8Array<ArrayBuffer>, scale?: object }>}
 *   dtype: "F32", "F16" or "I8", which has a `scale`: another tensor, F16 or F32
 */
export async function* readWeights(url, { bytes, hash, digests, cache, note, progress }) {
  const { response, cached, kept } = await openFile(url, cache ? hash : null, note);
  try {
    let loaded = 0;
    const read = chunkReader(response.body, (count) => progress((loaded += count), bytes, cached));
    const head = await read(8);
    const size = Number(new DataView(head.buffer).getBigUint64(0, true));
    if (!(size < bytes)) throw wrongFile(url, 'no header of safetensors', 'one');
    const header = await read(size);
    await checkDigest(header, digests[HEADER], `the header of ${url}`, note);
    const { __metadata__, ...entries } = parseJson(header, `the header of ${url}`);
    const byPlace = Object.entries(entries).sort((a, b) => a[1].data_offsets[0] - b[1].data_offsets[0]);
    const scales = new Map(); // they come before the integers: safetensors sorts tensors by the size of their numbers
    for (const [name, { dtype, shape, data_offsets: [begin, end] }] of byPlace) {
      const tensor = { name, dtype, shape, data: await read(end - begin) };
      await checkDigest(tensor.data, digests[name], `${name} in ${url}`, note);
      if (name.endsWith(' scale')) scales.set(name, tensor);
      else yield { ...tensor, scale: scales.get(`${name} scale`) };
    }
    if (loaded !== bytes) throw wrongFile(url, `${loaded} bytes`, `${bytes}`);
  } catch (error) {
    await forgetWeights(url, hash); // or every later visit would read the same wrong file
    throw error;
  }
  await kept;
}

const wrongFile = (url, found, expected) =>
  new EngineError(`${url} has ${found}, expected ${expected}: the file was cut or belongs to another export; reload the page`);

/** The file, from the cache if it is there. `kept` ends once a new file is in the cache, or cannot be kept. */
async function openFile(url, hash, note) {
  const store = hash === null ? null : await openCache(`${PREFIX} ${url} `, hash, note);
  const known = await store?.match(url);
  if (known) return { response: known, cached: true, kept: Promise.resolve() };
  const response = await fetchFile(url, store ? 'no-store' : 'no-cache'); // kept once
  if (!store) return { response, cached: false, kept: Promise.resolve() };
  const [ours, theirs] = response.body.tee();
  const kept = store.put(url, new Response(theirs, { headers: response.headers })).catch((error) => {
    note(`the weights are not kept for the next visit (${error.name}): the browser lends this page no room`);
  });
  return { response: new Response(ours), cached: false, kept };
}

/** The export's own cache; those of earlier exports at the same address are deleted. null where a page has none. */
async function openCache(prefix, hash, note) {
  try {
    const names = await caches.keys();
    await Promise.all(names.filter((n) => n.startsWith(prefix) && n !== prefix + hash).map((n) => caches.delete(n)));
    return await caches.open(prefix + hash);
  } catch (error) {
    note(`the weights are not kept for the next visit (${error.name}): pages without https or localhost have no cache`);
    return null;
  }
}

/** Forget the weights of an export, after they turned out to be wrong. */
export async function forgetWeights(url, hash) {
  await globalThis.caches?.delete(`${PREFIX} ${url} ${hash}`).catch(() => {});
}

/** A function that reads so many bytes of a stream into an array of their own. */
function chunkReader(stream, count) {
  const reader = stream.getReader();
  let rest = new Uint8Array(0);
  return async (size) => {
    const found = new Uint8Array(size);
    let at = 0;
    while (at < size) {
      if (!rest.length) {
        const { done, value } = await reader.read().catch(() => ({ done: true })); // the connection was lost
        if (done) throw new EngineError('the file of weights ended early: the download was cut; reload the page');
        rest = value;
        count(value.length);
      }
      const part = rest.subarray(0, size - at);
      found.set(part, at);
      at += part.length;
      rest = rest.subarray(part.length);
    }
    return found;
  };
}

let widened; // the value of every f16, by its bits

const GROUP = 64; // weights that share a scale (graph/ops/quantized.py)

/**
 * Integers times their scales. A matrix (K, N) has scales (K / 64, N), a table (V, C) has (V, C / 64), both rounded up.
 * @returns {Float32Array<ArrayBuffer>}
 */
function widenInt8({ shape: [rows, columns], data, scale }) {
  const factors = toFloat32(scale);
  const isTable = scale.shape[0] === rows && (rows > 1 || scale.shape[1] !== columns);
  const integers = new Int8Array(data.buffer);
  const found = new Float32Array(integers.length);
  for (let row = 0, at = 0; row < rows; row++) {
    const first = isTable ? row * scale.shape[1] : Math.floor(row / GROUP) * columns;
    if (isTable) for (let i = 0; i < columns; i++, at++) found[at] = integers[at] * factors[first + Math.floor(i / GROUP)];
    else for (let i = 0; i < columns; i++, at++) found[at] = integers[at] * factors[first + i];
  }
  return found;
}

/** The values of a tensor as f32. @returns {Float32Array<ArrayBuffer>} */
export function toFloat32(tensor) {
  const { dtype, data } = tensor;
  if (dtype === 'I8') return widenInt8(tensor);
  if (dtype === 'F32') return new Float32Array(data.buffer);
  widened ??= Float32Array.from({ length: 1 << 16 }, (_, bits) => halfValue(bits));
  const halves = new Uint16Array(data.buffer);
  const found = new Float32Array(halves.length);
  for (let i = 0; i < halves.length; i++) found[i] = widened[halves[i]];
  return found;
}

/** The value of an f16. */
function halfValue(bits) {
  const sign = bits >> 15 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}
