// The engine of an exported folder in a worker: the page stays fluid while texts are tokenised and computed.

import { EngineError, similarity } from './engine.js';
import { findMissing, folderAddress } from './files.js';
import { LOAD, readOptions } from './options.js';

/**
 * As loadEngine of engine.js, in a worker. Only `tokenize` differs: it is async, too. `explain(a, b)` is explainPair of explain.js,
 * and `explains` says whether the model can do it.
 * @param {string | URL} url of the exported folder
 * @param {import('./engine.d.ts').LoadOptions} options
 * @returns {Promise<WorkerEngine>}
 */
export async function loadWorkerEngine(url = new URL('.', import.meta.url), options = {}) {
  const { gpu, ...types } = LOAD; // a worker has its own
  const { progress, ...given } = readOptions('loadWorkerEngine', options, types);
  const engine = new WorkerEngine(progress);
  try {
    const address = folderAddress(url).href;
    return Object.assign(engine, await engine.call('load', [address, given]));
  } catch (error) {
    engine.close();
    throw error;
  }
}

const SCRIPT = new URL('worker.js', import.meta.url);

class WorkerEngine {
  #worker = new Worker(SCRIPT, { type: 'module' });
  #waiting = new Map(); // number of a call -> how it ends
  #calls = 0;

  constructor(progress = () => {}) {
    this.#worker.addEventListener('message', ({ data: { id, result, error, progress: event } }) => {
      if (event) return progress(event);
      const { resolve, reject } = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (!error) resolve(result);
      else reject(error.name === 'EngineError' ? new EngineError(error.message) : new Error(`${error.name}: ${error.message}`));
    });
    this.#worker.addEventListener('error', async ({ message }) => {
      const missing = message ? '' : await findMissing(SCRIPT); // the event of a file that is missing has no message
      this.#end(missing || `the worker cannot run (${message ?? 'the browser does not say why'}): reload the page`);
    });
  }

  /** Have the worker run a method. */
  call(method, values) {
    if (!this.#worker) return Promise.reject(new EngineError('this engine was closed: load it again'));
    return new Promise((resolve, reject) => {
      this.#waiting.set(++this.#calls, { resolve, reject });
      try {
        this.#worker.postMessage({ id: this.#calls, method, values });
      } catch (error) {
        this.#waiting.delete(this.#calls);
        reject(new EngineError(`the arguments of ${method} cannot be sent to a worker (${error.message}): give texts and plain options`));
      }
    });
  }

  encode(texts, options) {
    return this.call('encode', [texts, options]);
  }

  encodeQuery(texts, options) {
    return this.call('encodeQuery', [texts, options]);
  }

  encodeDocument(texts, options) {
    return this.call('encodeDocument', [texts, options]);
  }

  tokenize(text) {
    return this.call('tokenize', [text]);
  }

  explain(a, b) {
    return this.call('explain', [a, b]);
  }

  similarity(a, b) {
    return similarity(a, b, this.metric);
  }

  /** End the worker, and with it every call that is under way. */
  close() {
    this.#end('this engine was closed: load it again');
  }

  #end(why) {
    this.#worker?.terminate();
    this.#worker = null;
    for (const { reject } of this.#waiting.values()) reject(new EngineError(why));
    this.#waiting.clear();
  }
}
