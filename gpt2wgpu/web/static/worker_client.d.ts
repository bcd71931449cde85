import type { Engine, LoadOptions } from './engine.js';

/** A cosine as an exact sum. */
export interface PairShares {
  cosine: number;
  /** Of each text its tokens, and what each adds; the shares of either text add up to the cosine. */
  texts: [TokenShares, TokenShares];
  /** What each token of the first text adds with each of the second. */
  pairs: number[][];
}

export interface TokenShares {
  tokens: string[];
  shares: number[];
}

/** An engine in a worker: as in a page, but `tokenize` is async. */
export interface WorkerEngine extends Omit<Engine, 'tokenize'> {
  tokenize(text: string): Promise<ReturnType<Engine['tokenize']>>;
  /** Whether the model's vectors are sums over tokens, so that `explain` can split a cosine. */
  readonly explains: boolean;
  explain(a: string, b: string): Promise<PairShares>;
}

/** Load an exported folder in a worker; by default the one that holds this module. */
export function loadWorkerEngine(url?: string | URL, options?: Omit<LoadOptions, 'gpu'>): Promise<WorkerEngine>;
