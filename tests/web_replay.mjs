// Computes vectors with exported folders in Node, on Dawn: node web_replay.mjs WEBGPU ENGINE
// WEBGPU, ENGINE: the modules. Reads one request a line from stdin, a JSON object, and prints one JSON object for each: what it
// gave, or its error.

import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [webgpu, module] = process.argv.slice(2).map(pathToFileURL);
const { create, globals } = await import(webgpu);
Object.assign(globalThis, globals);
const gpu = create([]);
const { loadEngine, pipeline, similarity } = await import(module);
Object.defineProperty(globalThis, 'navigator', { value: { gpu } });

let engine;
const warnings = [];
console.warn = (text) => warnings.push(text);
const plain = (value) => (value instanceof Float32Array ? [...value] : Array.isArray(value) ? value.map(plain) : value);

/** The same GPU, whose device binds at most so many bytes. */
const narrow = (maxStorageBufferBindingSize) => ({
  async requestAdapter() {
    const adapter = await gpu.requestAdapter();
    const { info, limits, features } = adapter;
    const requestDevice = async (wanted) => {
      const device = await adapter.requestDevice(wanted);
      return Object.defineProperty(device, 'limits', { value: { maxBufferSize: limits.maxBufferSize, maxStorageBufferBindingSize } });
    };
    return { info, limits, features, requestDevice };
  },
});

const actions = {
  async load({ url, options, most }) {
    const stages = new Set();
    engine?.close();
    engine = await loadEngine(url, { progress: ({ stage }) => stages.add(stage), gpu: most ? narrow(most) : gpu, ...options });
    return { ...engine, stages: [...stages] };
  },
  call: async ({ name, args }) => plain(await engine[name](...args)),
  similarity: ({ args }) => similarity(...args),
  async pipeline({ url, options, task = 'feature-extraction', args }) {
    const extract = await pipeline(task, url, options);
    const { data, dims, tolist } = await extract(...args);
    extract.dispose();
    return { data: plain(data), dims, list: tolist() };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { action, ...request } = JSON.parse(line);
  let answer;
  try {
    answer = { value: await actions[action](request), warnings: warnings.splice(0) };
  } catch (error) {
    answer = { error: `${error.name}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
process.exit(0); // Dawn's threads would go on
