// Text in, vectors out: the engine of an exported folder, on WebGPU or, without a GPU, on the CPU.

import { packBatch, planBatches } from './batch.js';
import { EngineError } from './errors.js';
import { checkAbout, checkDigest, folderAddress, importModule, parseJson, readFile } from './files.js';
import { GPUProgram, openAdapter, openDevice } from './gpu.js';
import { checkChoice, ENCODE, LOAD, readOptions } from './options.js';
import { METRICS, similarity } from './similarity.js';
import { forgetWeights, readWeights, toFloat32 } from './weights.js';

export { EngineError, similarity };

const FORMAT = 1; // of engine.json
const LEAST_TOKENS = 128; // of a batch, however slow the device is
// how far a vector of the self-check may be from Python's, as a part of its largest value
const TOLERANCE = { f32: 1e-3, f16: 3e-2 };

/** Load an exported folder. See engine.d.ts for the options and for what the engine offers. */
export async function loadEngine(url = new URL('.', import.meta.url), options = {}) {
  const given = readOptions('loadEngine', options, LOAD);
  const { device = 'auto', dtype = 'f32', cache = true, progress = () => {}, gpu = globalThis.navigator?.gpu } = given;
  checkChoice('device', device, ['auto', 'webgpu', 'cpu']);
  checkChoice('dtype', dtype, ['f32', 'f16']);
  const base = folderAddress(url);
  const files = ['engine.json', 'tokenizer.json'].map((name) => readFile(new URL(name, base).href));
  const [json, tokenizer, { loadTokenizer }] = await Promise.all([...files, importModule('text.js', () => import('./text.js'))]);
  const about = parseJson(json, 'engine.json');
  checkAbout(about, FORMAT, Object.keys(METRICS));
  const engine = new Engine(base, about, cache);
  await engine.setTokenizer(tokenizer, loadTokenizer);
  await engine.open({ device, dtype, progress, gpu });
  return engine;
}

/** A model in a page. `loadEngine` makes it. */
export class Engine {
  #about;
  #base;
  #cache;
  #tokenizer = null;
  #program = null;
  #budget = 512; // tokens of a batch; it follows the speed of the device

  constructor(base, about, cache) {
    this.#base = base;
    this.#about = about;
    this.#cache = cache;
    this.model = about.model;
    this.hash = about.hash;
    this.dimensions = about.dimensions;
    this.maxLength = about.text.max_length;
    this.prompts = about.prompts;
    this.metric = about.similarity;
    this.positionPad = about.position_pad;
    this.notices = [];
  }

  /** The graph in f32, for those who compute with it themselves. */
  get form() {
    return this.#about.forms.f32;
  }

  /** tokenizer.json, compared with what the export wrote. Throws EngineError. */
  async setTokenizer(bytes, loadTokenizer) {
    await checkDigest(bytes, this.#about.digests['tokenizer.json'], 'tokenizer.json', this.#note);
    this.#tokenizer = await loadTokenizer(parseJson(bytes, 'tokenizer.json'), this.#about.text);
  }

  #note = (text) => {
    if (!this.notices.includes(text)) this.notices.push(text);
  };

  /** Choose the device, load the weights, compile, and compare three vectors with Python's. */
  async open({ device, dtype, progress, gpu }) {
    const asked = device === 'webgpu';
    const { adapter, name, reason } = device === 'cpu' ? { name: '', reason: 'as asked' } : await openAdapter(gpu, asked);
    if (asked && !adapter) throw new EngineError(`device 'webgpu': ${reason}; use device 'auto' or 'cpu'`);
    this.device = adapter ? 'webgpu' : 'cpu';
    this.adapter = name;
    this.reason = reason;
    this.dtype = dtype;
    const form = this.#about.forms[dtype];
    if (!form) throw new EngineError(`this export has no f16 matrices: export it with --dtype f16, or use dtype 'f32'`);
    try {
      this.#program = adapter
        ? await this.#openGPU(await openDevice(adapter, name, dtype), form, progress)
        : await this.#openPlain(dtype, form, progress);
      progress({ stage: 'check' });
      await this.#checkVectors();
    } catch (error) {
      this.close();
      throw error;
    }
  }

  async #openGPU(device, form, progress) {
    const program = new GPUProgram(device, this.adapter, form);
    const leaves = new Map(form.tensors.filter((t) => t.weight).map((t) => [t.name, t]));
    try {
      for await (const tensor of this.#readWeights(progress)) {
        const { shape, dtype } = leaves.get(tensor.name);
        program.addWeight(tensor.name, shape[0], dtype === 'f16' ? tensor.data : toFloat32(tensor));
      }
      progress({ stage: 'kernels' });
      return await program.compile();
    } catch (error) {
      program.close();
      throw error;
    }
  }

  async #openPlain(dtype, form, progress) {
    if (dtype === 'f16') throw new EngineError(`dtype 'f16' needs WebGPU (${this.reason}): use dtype 'f32'`);
    const { compilePlain } = await importModule('plain.js', () => import('./plain.js'));
    const program = compilePlain(form, await this.weights(progress));
    this.adapter = `CPU, ${program.simd ? 'WebAssembly SIMD' : 'plain JavaScript'}`;
    return program;
  }

  #readWeights(progress = () => {}) {
    const { file, bytes } = this.#about.weights;
    const { hash } = this;
    const { digests } = this.#about;
    const report = (loaded, total, cached) => progress({ stage: 'weights', loaded, total, cached });
    const how = { bytes, hash, digests, cache: this.#cache, note: this.#note, progress: report };
    return readWeights(new URL(file, this.#base).href, how);
  }

  /** All weights in f32, by name. */
  async weights(progress) {
    const found = new Map();
    for await (const tensor of this.#readWeights(progress)) found.set(tensor.name, toFloat32(tensor));
    return found;
  }

  /** Batches of one short text, of three, and of enough for the kernels of many rows. */
  async #checkVectors() {
    const { checks, position_pad: pad, width } = this.#about;
    const ids = checks.map(({ text }) => this.#tokenizer.encode(text, 'a text of the self-check').ids);
    const all = [0, 1, 2];
    for (const texts of this.device === 'webgpu' ? [[0], all, [...all, ...all, ...all]] : [all]) {
      const found = await this.#program.run(packBatch(texts.map((i) => ids[i]), texts.map(() => 0), pad));
      texts.forEach((i, row) => {
        const expected = checks[i].vector;
        const largest = Math.max(...expected.map(Math.abs));
        const error = Math.max(...expected.map((x, k) => Math.abs(x - found[row * width + k]))) / largest;
        if (!(error <= TOLERANCE[this.dtype])) this.#refuseVector(checks[i].text, error);
      });
    }
  }

  #refuseVector(text, error) {
    forgetWeights(new URL(this.#about.weights.file, this.#base).href, this.hash);
    const what = `the vector of "${text.slice(0, 20)}" differs from Python's by ${error.toPrecision(2)} of its largest value`;
    const advice = this.device === 'webgpu' ? "use device 'cpu', or update browser and driver" : 'export it again';
    throw new EngineError(`self-check on ${this.adapter}: ${what}; nothing is computed: reload the page, ${advice}`);
  }

  async encode(texts, options = {}) {
    if (!this.#program) throw new EngineError('this engine was closed: load it again');
    const given = readOptions('encode', options, ENCODE);
    const { normalize = false, truncate = true, dimensions = this.dimensions } = given;
    const single = typeof texts === 'string';
    if (!single && !Array.isArray(texts)) {
      throw new EngineError(`texts must be a string or an array of strings, not ${typeof texts}`);
    }
    if (!Number.isInteger(dimensions) || dimensions < 1) {
      throw new EngineError(`dimensions must be a whole number from 1, not ${dimensions}`);
    }
    const prompt = this.#prompt(given);
    const sequences = this.#tokenize(single ? [texts] : texts, prompt, truncate);
    const skip = prompt && !this.#about.include_prompt ? this.#tokenizer.promptLength(prompt) : 0;
    const rows = await this.#compute(sequences, skip);
    const vectors = rows.map((row) => (normalize ? scaleToOne : (v) => v)(row.slice(0, dimensions)));
    return single ? vectors[0] : vectors;
  }

  async encodeQuery(texts, options = {}) {
    return this.encode(texts, this.#withPrompt(options, this.#about.query_prompt));
  }

  async encodeDocument(texts, options = {}) {
    return this.encode(texts, this.#withPrompt(options, this.#about.document_prompt));
  }

  #withPrompt(options, prompt) {
    const given = readOptions('encode', options, ENCODE);
    return given.prompt === undefined && given.promptName === undefined ? { ...given, prompt } : given;
  }

  #prompt({ prompt, promptName }) {
    if (prompt !== undefined) return prompt;
    if (promptName === undefined) return this.#about.default_prompt ?? '';
    if (Object.hasOwn(this.prompts, promptName)) return this.prompts[promptName];
    const known = Object.keys(this.prompts).join(', ') || 'none';
    throw new EngineError(`promptName "${promptName}" is not among the model's prompts (${known}); give its text as prompt`);
  }

  /** The tokens of every text. Says how many were cut. */
  #tokenize(texts, prompt, truncate) {
    let cut = 0;
    const sequences = Array.from(texts, (text, i) => {
      const prompted = typeof text === 'string' ? prompt + text : text;
      const { ids, count } = this.#tokenizer.encode(prompted, `text ${i}`);
      if (count > this.maxLength && !truncate) {
        const found = `text ${i} has at least ${count} tokens, the model reads ${this.maxLength}`;
        throw new EngineError(`${found}: shorten it, or cut it with truncate: true`);
      }
      cut += count > this.maxLength ? 1 : 0;
      return ids;
    });
    const all = `${cut} of ${texts.length} texts`;
    if (cut) console.warn(`${all} had more than ${this.maxLength} tokens and were cut there (max_seq_length)`);
    return sequences;
  }

  /** The vectors of sequences, in batches, two of them under way. Equal ones are computed once. */
  async #compute(sequences, skip) {
    const { capacity, position_pad: pad, width } = this.#about;
    const firsts = new Map();
    const sameAs = sequences.map((ids, i) => {
      const key = ids.join(' ');
      if (!firsts.has(key)) firsts.set(key, i);
      return firsts.get(key);
    });
    const distinct = [...firsts.values()];
    const found = new Array(sequences.length);
    const lengths = distinct.map((i) => sequences[i].length);
    const running = [];
    const finish = async () => {
      const { texts, tokens, started, output } = running.shift();
      const vectors = await output;
      this.#pace(tokens, performance.now() - started, capacity.T);
      texts.forEach((i, row) => {
        found[i] = vectors.slice(row * width, (row + 1) * width);
        if (!found[i].every(Number.isFinite)) {
          const why = this.dtype === 'f32' ? "the model's weights overflow" : "use dtype 'f32'";
          throw new EngineError(`the vector of text ${i} holds NaN or Inf (${this.adapter}, ${this.dtype}): ${why}`);
        }
      });
    };
    for (const planned of planBatches(lengths, this.#budget, capacity.B)) {
      const texts = planned.map((k) => distinct[k]);
      const batch = packBatch(texts.map((i) => sequences[i]), texts.map(() => skip), pad);
      const output = Promise.resolve(this.#program.run(batch));
      output.catch(() => {}); // it is awaited later
      running.push({ texts, tokens: batch.sizes.T, started: performance.now(), output });
      if (running.length > 1) await finish();
      if (this.device === 'cpu') await new Promise((resume) => setTimeout(resume)); // the page may draw
    }
    while (running.length) await finish();
    return sameAs.map((i) => found[i]);
  }

  /** A batch should take long enough to be worth it, and never so long that the screen waits for it. */
  #pace(tokens, milliseconds, most) {
    if (milliseconds > 250) this.#budget = Math.max(LEAST_TOKENS, this.#budget >> 1);
    else if (milliseconds < 60 && 2 * tokens > this.#budget) this.#budget = Math.min(most, 2 * this.#budget);
  }

  tokenize(text) {
    const { ids, count } = this.#tokenizer.encode(text, 'the text');
    return { ids, count, tokens: Array.from(ids, (id) => this.#tokenizer.tokenOf(id)) };
  }

  similarity(a, b) {
    return similarity(a, b, this.metric);
  }

  close() {
    this.#program?.close?.();
    this.#program = null;
  }
}

/** The vector scaled to length 1; a zero vector stays zero. */
function scaleToOne(vector) {
  const length = Math.max(Math.hypot(...vector), 1e-12);
  return vector.map((x) => x / length);
}

export { pipeline } from './pipeline.js';
