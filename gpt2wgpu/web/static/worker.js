// An engine off the page's thread: worker_client.js sends { id, method, values }, and gets { id, result } or { id, error } back.

import { loadEngine } from './engine.js';
import { explainPair, findPooling } from './explain.js';

const TOLD = ['model', 'hash', 'device', 'adapter', 'reason', 'dtype', 'dimensions', 'maxLength', 'prompts', 'metric', 'notices'];
let engine;

const METHODS = {
  async load(url, options) {
    engine = await loadEngine(url, { ...options, progress: (event) => postMessage({ progress: event }) });
    return { ...Object.fromEntries(TOLD.map((name) => [name, engine[name]])), explains: findPooling(engine.form) !== null };
  },
  encode: (...values) => engine.encode(...values),
  encodeQuery: (...values) => engine.encodeQuery(...values),
  encodeDocument: (...values) => engine.encodeDocument(...values),
  tokenize: (text) => engine.tokenize(text),
  explain: (a, b) => explainPair(engine, a, b),
};

addEventListener('message', async ({ data: { id, method, values } }) => {
  try {
    postMessage({ id, result: await METHODS[method](...values) });
  } catch ({ name, message }) {
    postMessage({ id, error: { name, message } });
  }
});
