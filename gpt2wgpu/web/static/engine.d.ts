/** Whatever cannot be done. The message is one line: what was expected, what was found, what to do. */
export class EngineError extends Error {}

export interface LoadOptions {
  /** auto: WebGPU on a real GPU, otherwise the CPU. webgpu: also on a software driver. Default: auto. */
  device?: 'auto' | 'webgpu' | 'cpu';
  /** Of the computation. f16 needs WebGPU with shader-f16 and an export with f16 matrices. Default: f32, as Python computes. */
  dtype?: 'f32' | 'f16';
  /** Keep the weights in the browser's Cache API for the next visit. Default: true. */
  cache?: boolean;
  progress?: (event: Progress) => void;
  /** WebGPU's entry where it is not navigator.gpu, as in Node: `create([])` of the npm package webgpu. */
  gpu?: object;
}

export interface Progress {
  stage: 'weights' | 'kernels' | 'check';
  /** Bytes so far and in all, while the stage is "weights". */
  loaded?: number;
  total?: number;
  /** Whether they come from the browser's cache. */
  cached?: boolean;
}

export interface EncodeOptions {
  /** Put before each text; without it the prompt called promptName, else the model's default one. null is as if left out. */
  prompt?: string | null;
  promptName?: string | null;
  /** Scale each vector to length 1, after truncation. Default: false. */
  normalize?: boolean;
  /** Cut texts over maxLength tokens, with a console.warn that counts them; false refuses them. Default: true. */
  truncate?: boolean;
  /** Keep only the first dimensions; all where the model has no more, as in Python. */
  dimensions?: number;
}

export type Vector = Float32Array | number[];

/**
 * A model in a page. A call that cannot be done rejects with an EngineError, or throws one where it is not async: for an argument of
 * another type, an option that it does not have, a file that is missing or wrong.
 */
export interface Engine {
  readonly model: string;
  /** The export's name in the browser's cache: SHA-256 that Python computed of engine.json, which a page does not compute again. */
  readonly hash: string;
  readonly device: 'webgpu' | 'cpu';
  /** The name of the GPU, or "CPU, WebAssembly SIMD", or "CPU, plain JavaScript". */
  readonly adapter: string;
  /** Why no GPU is used; "" if one is. */
  readonly reason: string;
  readonly dtype: 'f32' | 'f16';
  readonly dimensions: number;
  /** Tokens of a text that are read, special ones included. */
  readonly maxLength: number;
  readonly prompts: Record<string, string>;
  /** The measure of `similarity`. */
  readonly metric: Metric;
  /** What a user may want to know, such as that the weights could not be kept, or the files not be compared with their SHA-256. */
  readonly notices: string[];

  /** The vector of a text; of several texts, their vectors in the order given. */
  encode(text: string, options?: EncodeOptions): Promise<Float32Array>;
  encode(texts: readonly string[], options?: EncodeOptions): Promise<Float32Array[]>;
  /** `encode` with the model's prompt for queries, unless one is given. */
  encodeQuery(text: string, options?: EncodeOptions): Promise<Float32Array>;
  encodeQuery(texts: readonly string[], options?: EncodeOptions): Promise<Float32Array[]>;
  /** `encode` with the model's prompt for documents, unless one is given. */
  encodeDocument(text: string, options?: EncodeOptions): Promise<Float32Array>;
  encodeDocument(texts: readonly string[], options?: EncodeOptions): Promise<Float32Array[]>;

  /** By the model's own measure; distances are negated, so higher is closer. */
  similarity(a: Vector, b: Vector): number;
  similarity(a: Vector, b: readonly Vector[]): number[];
  similarity(a: readonly Vector[], b: Vector): number[];
  similarity(a: readonly Vector[], b: readonly Vector[]): number[][];

  /** The tokens that are read of a text, and how many there were before cutting. */
  tokenize(text: string): { ids: Uint32Array; tokens: string[]; count: number };
  /** Free the memory. A closed engine refuses every call. */
  close(): void;
}

/** Load an exported folder; by default the one that holds this module. Rejects with an EngineError if it cannot be trusted. */
export function loadEngine(url?: string | URL, options?: LoadOptions): Promise<Engine>;

export type Metric = 'cosine' | 'dot' | 'euclidean' | 'manhattan';
export function similarity(a: Vector, b: Vector, metric?: Metric): number;
export function similarity(a: Vector, b: readonly Vector[], metric?: Metric): number[];
export function similarity(a: readonly Vector[], b: Vector, metric?: Metric): number[];
export function similarity(a: readonly Vector[], b: readonly Vector[], metric?: Metric): number[][];

export interface Features {
  data: Float32Array;
  dims: [texts: number, dimensions: number];
  type: 'float32';
  tolist(): number[][];
}

export interface PipelineOptions {
  device?: 'auto' | 'webgpu' | 'gpu' | 'wasm' | 'cpu';
  dtype?: 'auto' | 'fp32' | 'fp16' | 'f32' | 'f16';
  progress_callback?: (event: { status: string; file?: string; loaded?: number; total?: number; progress?: number }) => void;
}

export interface Extractor {
  /** pooling: only the model's own, which the graph was exported with. */
  (texts: string | readonly string[], options?: { pooling?: string; normalize?: boolean }): Promise<Features>;
  engine: Engine;
  dispose(): void;
}

/** The interface of transformers.js. */
export function pipeline(task: 'feature-extraction', url: string | URL, options?: PipelineOptions): Promise<Extractor>;
