// The interface of transformers.js, for pages that have it already.

import { EngineError, loadEngine } from './engine.js';
import { readOptions } from './options.js';

const DTYPES = { fp32: 'f32', fp16: 'f16', f32: 'f32', f16: 'f16', auto: 'f32' };
const DEVICES = { wasm: 'cpu', gpu: 'webgpu' };
const LOAD = { device: 'string', dtype: 'string', progress_callback: 'function' };
const POOLINGS = { last_token: 'last', first_token: 'cls' };

/**
 * `pipeline('feature-extraction', url)`: a function from texts to { data, dims, tolist() }.
 * Throws EngineError for another task, and for a pooling that is not the model's: the graph was exported with it.
 */
export async function pipeline(task, url, options = {}) {
  const { device = 'auto', dtype = 'f32', progress_callback: report } = readOptions('pipeline', options, LOAD);
  if (task !== 'feature-extraction' && task !== 'embeddings') {
    throw new EngineError(`the task must be "feature-extraction", not ${JSON.stringify(task)}`);
  }
  if (!(Object.hasOwn(DTYPES, dtype))) {
    throw new EngineError(`dtype must be fp32 or fp16, not ${JSON.stringify(dtype)}: int8 is chosen at the export, with --dtype int8`);
  }
  const progress = ({ stage, loaded, total }) => {
    const file = 'weights.safetensors';
    if (stage === 'weights') report?.({ status: 'progress', file, loaded, total, progress: (100 * loaded) / total });
  };
  const engine = await loadEngine(url, { device: DEVICES[device] ?? device, dtype: DTYPES[dtype], progress });
  report?.({ status: 'ready', task, model: engine.model });
  const modes = [...new Set(engine.form.tensors.filter((t) => t.op === 'pool').map((t) => t.attrs.mode))];

  async function extract(texts, options = {}) {
    const { pooling, normalize = false } = readOptions('the pipeline', options, { pooling: 'string', normalize: 'boolean' });
    const asked = POOLINGS[pooling] ?? pooling;
    if (asked !== undefined && (modes.length > 1 || asked !== modes[0])) {
      throw new EngineError(`pooling ${JSON.stringify(pooling)} is not the model's (${modes.join(', ')}): leave it out`);
    }
    const vectors = await engine.encode(typeof texts === 'string' ? [texts] : texts, { normalize });
    const width = vectors[0]?.length ?? engine.dimensions;
    const data = new Float32Array(vectors.length * width);
    vectors.forEach((v, i) => data.set(v, i * width));
    return { data, dims: [vectors.length, width], type: 'float32', tolist: () => vectors.map((v) => [...v]) };
  }
  return Object.assign(extract, { engine, dispose: () => engine.close() });
}
