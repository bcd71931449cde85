// Compiled, never run: a page's use of the engine, as its types allow it (tests/in_node).

import { loadEngine, pipeline, similarity, type Engine, type Features } from '../gpt2wgpu/web/static/engine.js';
import { loadWorkerEngine, type PairShares } from '../gpt2wgpu/web/static/worker_client.js';

const engine: Engine = await loadEngine('model/', { device: 'cpu', progress: ({ stage, loaded }) => console.log(stage, loaded) });
const one: Float32Array = await engine.encode('a text', { normalize: true });
const several: Float32Array[] = await engine.encodeDocument(['one', 'two'], { prompt: 'passage: ', promptName: null });
const scores: number[] = engine.similarity(one, several);
const matrix: number[][] = similarity(several, several, 'dot');
const score: number = similarity(one, [1, 2, 3]);
const extract = await pipeline('feature-extraction', new URL('https://example.org/model/'), { dtype: 'fp32' });
const features: Features = await extract(['a text'], { pooling: 'mean', normalize: true });
const width: number = features.dims[1];
const worker = await loadWorkerEngine('model/', { device: 'webgpu' });
const away: Float32Array = await worker.encodeQuery('a text');
const shares: PairShares = await worker.explain('a text', 'another');
const ids: Uint32Array = (await worker.tokenize('a text')).ids;
export { away, ids, matrix, score, scores, shares, width };

// @ts-expect-error: no such device
await loadEngine('model/', { device: 'tpu' });
// @ts-expect-error: texts are strings
await engine.encode([5]);
// @ts-expect-error: no such task
await pipeline('translation', 'model/');
