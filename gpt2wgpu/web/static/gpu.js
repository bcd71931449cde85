// WebGPU: an exported graph and its weights, replayed for every batch with one upload, one compute pass and one readback.

import { EngineError } from './errors.js';

const ROW_BYTES = 256; // of uniform values: a multiple of every alignment that WebGPU may require
const TILE = 128; // sizes of buffers are rounded up to it, so that no tile of rows reaches past one
const PADDING = 256; // bytes after a weight, as kernels load whole tiles of columns
const BYTES = { f32: 4, u32: 4, f16: 2 };

const roundUp = (size, multiple) => Math.ceil(size / multiple) * multiple;
const ofSizes = (sizes) => (d) => sizes[d] ?? d;
const bytesOf = (t, sizes) => t.shape.map(ofSizes(sizes)).reduce((a, b) => a * b, BYTES[t.dtype]);

/**
 * The browser's adapter, or why there is none that should be used. A software driver is slower than plain.js.
 * @param {GPU | undefined} gpu
 * @param {boolean} software whether a software driver will do
 * @returns {Promise<{ adapter?: GPUAdapter, name: string, reason: string }>}
 */
export async function openAdapter(gpu, software) {
  if (!gpu) {
    const secure = globalThis.isSecureContext !== false;
    return { name: '', reason: secure ? 'this browser has no WebGPU' : 'WebGPU needs https or localhost' };
  }
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) return { name: '', reason: 'this browser finds no GPU' };
  const { vendor, architecture, device, description } = adapter.info ?? {};
  const name = [...new Set([vendor, architecture, device, description])].filter(Boolean).join(' ') || 'GPU';
  const slow = (adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter) || /swiftshader|llvmpipe|basic render/i.test(name);
  if (slow && !software) return { name, reason: `the only adapter is a software driver (${name})` };
  return { adapter, name, reason: '' };
}

/** A device of an adapter, with room as large as it grants and, for f16, its feature. Throws EngineError. */
export async function openDevice(adapter, name, dtype) {
  const features = dtype === 'f16' ? ['shader-f16'] : [];
  if (features.some((f) => !adapter.features.has(f))) {
    throw new EngineError(`${name} has no shader-f16, which dtype 'f16' computes with: use dtype 'f32'`);
  }
  const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
  return adapter.requestDevice({
    requiredFeatures: features,
    requiredLimits: { maxBufferSize, maxStorageBufferBindingSize },
  });
}

/** A form of engine.json on a device. Add every weight, then `compile`, then `run` batches. */
export class GPUProgram {
  /**
   * @param {GPUDevice} device its own: `close` destroys it
   * @param {string} name of the adapter, for messages
   */
  constructor(device, name, form) {
    Object.assign(this, { device, name, form });
    this.weights = new Map(); // by name: pieces { buffer, first, rows }; only a token table has several
    this.grown = null; // sizes that the buffers of a batch have room for
    this.failure = null;
    const { maxBufferSize, maxStorageBufferBindingSize } = device.limits;
    this.limit = Math.min(maxBufferSize, maxStorageBufferBindingSize);
    const tables = form.tensors.filter((t) => t.op === 'embed').map((t) => t.inputs[2]);
    this.tables = new Set(tables.map((i) => form.tensors[i].name));
    device.lost.then(({ message }) => (this.failure ??= `the GPU was lost (${message})`));
    device.onuncapturederror = ({ error }) => (this.failure ??= error.message);
    this.#watchErrors();
  }

  /** Collect errors until `#firstError`: WebGPU goes on with zeros after one. */
  #watchErrors() {
    for (const scope of ['validation', 'out-of-memory']) this.device.pushErrorScope(scope);
  }

  /** The first error since `#watchErrors`, or null. */
  async #firstError() {
    const found = await Promise.all([this.device.popErrorScope(), this.device.popErrorScope()]);
    return found.find((error) => error)?.message ?? null;
  }

  /** @param {string} name @param {number} rows of the weight @param {ArrayBufferView<ArrayBuffer>} array */
  addWeight(name, rows, array) {
    const { device } = this;
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    const row = bytes.length / rows;
    const most = Math.floor((this.limit - PADDING) / row);
    if (most < rows && !this.tables.has(name)) this.#refuseSize(name, bytes.length);
    const pieces = [];
    for (let first = 0; first < rows; first += most) {
      let part = bytes.subarray(first * row, (first + most) * row);
      const buffer = device.createBuffer({
        label: name,
        size: roundUp(part.length, 4) + PADDING,
        usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST,
      });
      if (part.length % 4) {
        const padded = new Uint8Array(roundUp(part.length, 4)); // an odd number of f16
        padded.set(part);
        part = padded;
      }
      device.queue.writeBuffer(buffer, 0, part);
      pieces.push({ buffer, first, rows: Math.min(most, rows - first) });
    }
    this.weights.set(name, pieces);
  }

  /** Compile every kernel and make the steps. Throws EngineError with the compiler's message, or if something does not fit. */
  async compile() {
    const { device, form } = this;
    const layouts = new Map();
    const pipelines = new Map();
    const pipeline = (source, bindings) => {
      if (!layouts.has(bindings)) layouts.set(bindings, bindGroupLayout(device, bindings));
      if (!pipelines.has(source)) {
        pipelines.set(
          source,
          device.createComputePipelineAsync({
            layout: device.createPipelineLayout({ bindGroupLayouts: [layouts.get(bindings)] }),
            compute: { module: device.createShaderModule({ code: form.sources[source] }), entryPoint: 'main' },
          }),
        );
      }
      return pipelines.get(source);
    };
    this.rows = []; // of uniform values: one for each kind, and one for each piece of a token table
    const rowOf = new Map();
    const steps = form.tensors.filter((t) => t.op).flatMap((t) => this.#dispatches(t, rowOf));
    this.steps = [];
    try {
      for (const step of steps) {
        const bindings = step.tensor.inputs.length + 2;
        const { kernels } = form.kinds[step.tensor.kind];
        const compiling = kernels.map(([most, source, grid]) => [most, pipeline(source, bindings), grid]);
        this.steps.push({ ...step, kernels: compiling, layout: layouts.get(bindings) });
      }
      await Promise.all(pipelines.values());
      for (const { kernels } of this.steps) for (const kernel of kernels) kernel[1] = await kernel[1];
    } catch (error) {
      throw new EngineError(`${this.name} cannot compile a kernel: ${error.message.split('\n')[0]}; use device 'cpu'`);
    }
    this.#grow(this.#planRoom({}));
    this.failure ??= await this.#firstError();
    this.#check();
    return this;
  }

  /** The dispatches of an op: one, or for an embedding one per piece of its table. */
  #dispatches(tensor, rowOf) {
    const { kinds, tensors } = this.form;
    const { uniforms } = kinds[tensor.kind];
    const names = tensor.inputs.map((i) => tensors[i].name);
    const at = tensor.op === 'embed' ? 2 : -1;
    const pieces = at < 0 ? [null] : this.weights.get(names[at]);
    return pieces.map((piece) => {
      const values = piece ? { ...uniforms, V: piece.rows, first: piece.first } : uniforms;
      const key = `${tensor.kind} ${piece?.first ?? 0}`;
      if (!rowOf.has(key)) rowOf.set(key, this.rows.push(Object.values(values)) - 1);
      return { tensor, row: rowOf.get(key), piece, at };
    });
  }

  /** The room for a batch: sizes, and bytes of each result buffer; null if there is enough. Throws EngineError if it is too large. */
  #planRoom(sizes) {
    if (this.grown && Object.entries(sizes).every(([symbol, size]) => size <= this.grown[symbol])) return null;
    const grown = {};
    for (const symbol of ['T', 'B', 'G']) {
      const wanted = Math.max(TILE, sizes[symbol] ?? 1);
      grown[symbol] = Math.max(TILE << Math.ceil(Math.log2(wanted / TILE)), this.grown?.[symbol] ?? 0);
    }
    const needed = [];
    for (const t of this.form.tensors.filter((t) => t.op)) {
      needed[t.buffer] = Math.max(needed[t.buffer] ?? 0, bytesOf(t, grown));
      if (needed[t.buffer] > this.limit) this.#refuseSize(`the result of ${t.op}`, needed[t.buffer]);
    }
    return { grown, needed };
  }

  /** Make the buffers of a batch, and the bind groups with them. */
  #grow({ grown, needed }) {
    const { device, form } = this;
    this.grown = grown;
    for (const buffer of [this.batch, ...(this.results ?? [])]) buffer?.destroy(); // once what was submitted is done

    let end = ROW_BYTES * this.rows.length;
    this.sections = new Map();
    for (const t of form.tensors.filter((t) => !t.op && !t.weight)) {
      const size = bytesOf(t, this.grown);
      this.sections.set(t, { offset: end, size });
      end += roundUp(size, ROW_BYTES);
    }
    const { UNIFORM, STORAGE, COPY_SRC, COPY_DST } = GPUBufferUsage;
    this.host = new ArrayBuffer(end);
    this.batch = device.createBuffer({ label: 'batch', size: end, usage: UNIFORM | STORAGE | COPY_DST });
    this.#writeRows({});

    this.results = needed.map((size) => device.createBuffer({ size: roundUp(size, 16), usage: STORAGE | COPY_SRC }));
    for (const step of this.steps) step.group = this.#bindGroup(step);
  }

  #bindGroup({ tensor, row, piece, at, layout }) {
    const bound = tensor.inputs.map((i, k) => {
      const t = this.form.tensors[i];
      if (t.op) return { buffer: this.results[t.buffer] };
      if (t.weight) return { buffer: k === at ? piece.buffer : this.weights.get(t.name)[0].buffer };
      return { buffer: this.batch, ...this.sections.get(t) };
    });
    const uniforms = { buffer: this.batch, offset: row * ROW_BYTES, size: ROW_BYTES };
    const entries = [uniforms, ...bound, { buffer: this.results[tensor.buffer] }];
    return this.device.createBindGroup({ layout, entries: entries.map((resource, binding) => ({ binding, resource })) });
  }

  #writeRows(sizes) {
    this.rows.forEach((values, i) => {
      const bits = values.map((v) => (typeof v === 'string' ? (sizes[v] ?? 0) : v));
      new Uint32Array(this.host, i * ROW_BYTES, values.length).set(bits);
    });
  }

  /**
   * The output for a batch of `packBatch`. It is submitted before this returns a promise, so several may be under way.
   * @returns {Promise<Float32Array<ArrayBuffer>>} (B, width)
   */
  async run({ arrays, sizes }) {
    this.#check();
    const room = this.#planRoom(sizes);
    this.#watchErrors();
    if (room) this.#grow(room);
    const { device, form } = this;
    this.#writeRows(sizes);
    let end = 0;
    for (const [t, { offset }] of this.sections) {
      new Uint32Array(this.host, offset, arrays[t.name].length).set(arrays[t.name]);
      end = Math.max(end, offset + arrays[t.name].byteLength);
    }
    device.queue.writeBuffer(this.batch, 0, this.host, 0, end);

    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { tensor, kernels, group } of this.steps) {
      const { rows } = form.kinds[tensor.kind];
      const [, pipeline, grid] = kernels.find(([most]) => most === null || (sizes[rows] ?? rows) <= most);
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...grid.map((size) => gridSize(size, sizes)));
    }
    pass.end();
    const output = form.tensors[form.output];
    const size = bytesOf(output, sizes);
    const readback = device.createBuffer({ size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    encoder.copyBufferToBuffer(this.results[output.buffer], 0, readback, 0, size);
    device.queue.submit([encoder.finish()]);
    const [error] = await Promise.all([
      this.#firstError(),
      readback.mapAsync(GPUMapMode.READ).catch(({ message }) => (this.failure ??= message)),
    ]);
    this.failure ??= error;
    this.#check();
    const found = new Float32Array(readback.getMappedRange().slice(0));
    readback.destroy();
    return found;
  }

  #check() {
    if (this.failure) throw new EngineError(`${this.name}: ${this.failure.split('\n')[0]}; reload the page, or use device 'cpu'`);
  }

  #refuseSize(what, size) {
    const mib = (bytes) => Math.floor(bytes / 2 ** 20);
    const needed = `${what} needs ${mib(size)} MiB in one piece`;
    throw new EngineError(`${needed}, ${this.name} allows ${mib(this.limit)}: use device 'cpu'`);
  }

  close() {
    this.failure = 'this engine was closed';
    this.device.destroy();
  }
}

/** A uniform block, inputs, an output: the layout depends only on how many, so kernels for few and many rows share bind groups. */
function bindGroupLayout(device, bindings) {
  const kinds = ['uniform', ...Array(bindings - 2).fill('read-only-storage'), 'storage'];
  return device.createBindGroupLayout({
    entries: kinds.map((type, binding) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } })),
  });
}

/** A number, a letter of the batch's sizes, or ["cdiv", a, b]. */
function gridSize(size, sizes) {
  if (!Array.isArray(size)) return sizes[size] ?? size;
  const [, a, b] = size;
  return Math.ceil(gridSize(a, sizes) / gridSize(b, sizes));
}
