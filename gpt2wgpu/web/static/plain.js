// A graph on the CPU, op by op, in f32: each function below is the numpy definition of gpt2wgpu/graph/ops once more. Products of
// matrices are in multiply.js. T tokens of B sequences lie end to end; spans (B, 2) says where each sequence begins and ends.

import { ACTIVATIONS } from './activations.js';
import { Workspace } from './multiply.js';
import { PANEL } from './wasm.js';

const QUERIES_TOGETHER = 64; // whose scores are in memory at a time: a long text never needs all n x n

/** The sum of the squares of some numbers. It overflows as in f32: then the vector is refused here as it is in Python. */
function squareSum(x, first, count, mean = 0) {
  let sum = 0;
  for (let i = first; i < first + count; i++) sum += (x[i] - mean) ** 2;
  return Math.fround(sum);
}

/** 1 / sqrt(mean(x^2) + eps) */
const rmsScale = (x, first, count, eps) => 1 / Math.sqrt(squareSum(x, first, count) / count + eps);

/** (x, y) -> (x cos - y sin, y cos + x sin) in whole heads of D numbers: x in a head's first half, y in its second. */
function turnHeads(row, first, count, table, position, D) {
  const half = D / 2, angles = position * D;
  for (let head = first; head < first + count; head += D) {
    for (let i = 0; i < half; i++) {
      const cos = table[angles + i], sin = table[angles + half + i], x = row[head + i], y = row[head + half + i];
      row[head + i] = x * cos - y * sin;
      row[head + half + i] = y * cos + x * sin;
    }
  }
}

/** How one op is computed: (its sizes, its attributes, its inputs, its output, what else there is). */
const OPS = {
  /** wte[ids] + wpe[positions] */
  embed({ T, C }, { first }, [ids, positions, wte, wpe], out) {
    for (let t = 0; t < T; t++) {
      const token = (ids[t] - first) * C, position = positions[t] * C;
      for (let c = 0; c < C; c++) out[t * C + c] = wte[token + c] + wpe[position + c];
    }
  },

  /** Rotary positions in the first `heads` heads of a row; the columns after them are copied. */
  rotary({ T, N, D }, { heads }, [qkv, positions, table], out) {
    out.set(qkv);
    for (let t = 0; t < T; t++) turnHeads(out, t * N, heads * D, table, positions[t], D);
  },

  /** rms_norm of each head in the first K columns, whose weights lie side by side, then rotary. */
  norm_rotary({ T, N, K, D }, { eps }, [qkv, weight, positions, table], out) {
    out.set(qkv);
    for (let t = 0; t < T; t++) {
      for (let head = 0; head < K; head += D) {
        const scale = rmsScale(qkv, t * N + head, D, eps);
        for (let i = head; i < head + D; i++) out[t * N + i] *= scale * weight[i];
      }
      turnHeads(out, t * N, K, table, positions[t], D);
    }
  },

  /** (x - mean) / sqrt(variance + eps) * weight + bias, over each row */
  layer_norm({ C }, { eps }, [x, weight, bias], out) {
    for (let row = 0; row < x.length; row += C) {
      let sum = 0;
      for (let c = 0; c < C; c++) sum += x[row + c];
      const mean = Math.fround(sum) / C; // overflows as in f32, too
      const scale = 1 / Math.sqrt(squareSum(x, row, C, mean) / C + eps);
      for (let c = 0; c < C; c++) out[row + c] = (x[row + c] - mean) * scale * weight[c] + bias[c];
    }
  },

  /** x / sqrt(mean(x^2) + eps) * weight, over each row */
  rms_norm({ C }, { eps }, [x, weight], out) {
    for (let row = 0; row < x.length; row += C) {
      const scale = rmsScale(x, row, C, eps);
      for (let c = 0; c < C; c++) out[row + c] = x[row + c] * scale * weight[c];
    }
  },

  /** activation(x @ weight + bias) */
  linear({ K, N }, { activation }, [, , bias], out, { workspace, places: [x, weight], place }) {
    for (let row = 0; row < out.length; row += N) out.set(bias, row);
    workspace.multiply(x, K, weight, place, N, out.length / N, K, N);
    if (activation === 'none' || workspace.gate(activation, place, out.length)) return;
    const activate = ACTIVATIONS[activation];
    for (let i = 0; i < out.length; i++) out[i] = activate(out[i]);
  },

  /** residual + (x @ weight + bias) */
  linear_add({ K, N }, attrs, [, , bias, residual], out, { workspace, places: [x, weight], place }) {
    for (let row = 0; row < out.length; row += N) {
      for (let n = 0; n < N; n++) out[row + n] = residual[row + n] + bias[n];
    }
    workspace.multiply(x, K, weight, place, N, out.length / N, K, N);
  },

  attention: softmaxAttention,
  attention_bias: softmaxAttention,

  /** activation(a) * b, where a row of x is a|b */
  glu({ N }, { activation }, [x], out) {
    const activate = ACTIVATIONS[activation];
    for (let row = 0; row < out.length; row += N) {
      for (let n = 0; n < N; n++) out[row + n] = activate(x[2 * row + n]) * x[2 * row + N + n];
    }
  },

  /** One row per sequence, from its tokens after the first `skip`, which are a prompt. */
  pool({ B, C }, { mode }, [x, spans, skip], out) {
    for (let b = 0; b < B; b++) {
      const start = spans[2 * b], first = start + skip[b], end = spans[2 * b + 1], row = out.subarray(b * C, (b + 1) * C);
      if (mode === 'max') row.fill(-Infinity);
      else row.fill(0);
      const from = mode === 'last' ? end - 1 : first, to = mode === 'cls' ? first + 1 : end;
      let total = 0;
      for (let t = from; t < to; t++) {
        const weight = mode === 'weighted_mean' ? t - start + 1 : 1; // by the position in the sequence: 1, 2, ...
        total += weight;
        for (let c = 0; c < C; c++) row[c] = mode === 'max' ? Math.max(row[c], x[t * C + c]) : row[c] + weight * x[t * C + c];
      }
      const scale = { mean: total, weighted_mean: total, sqrt_len_mean: Math.sqrt(total) }[mode] ?? 1;
      for (let c = 0; c < C; c++) row[c] /= scale;
    }
  },

  /** a|b: rows side by side */
  concat({ B, J, K }, attrs, [a, b], out) {
    for (let row = 0; row < B; row++) {
      out.set(a.subarray(row * J, (row + 1) * J), row * (J + K));
      out.set(b.subarray(row * K, (row + 1) * K), row * (J + K) + J);
    }
  },

  /** x / max(|x|, 1e-12), over each row */
  l2_normalize({ C }, attrs, [x], out) {
    for (let row = 0; row < x.length; row += C) {
      const length = Math.max(Math.sqrt(squareSum(x, row, C)), 1e-12);
      for (let c = 0; c < C; c++) out[row + c] = x[row + c] / length;
    }
  },
};

/**
 * softmax(scale q k^T + bias) v for each head inside each sequence. Rows hold q|k|v: heads of queries, of keys and of values.
 * causal: a token sees itself and those before it. window: only tokens at most so far away; 0: all. kv_heads: each is shared by
 * neighbouring heads of queries; 0: one for each. bias (H, R): added by the distance between key and query.
 */
function softmaxAttention({ N, C, B, R = 0 }, attrs, [, spans, , bias], out, { workspace, places: [place], place: outPlace, scratch }) {
  const { head_size: D, scale, causal, window = 0 } = attrs;
  const heads = C / D, shared = attrs.kv_heads ? heads / attrs.kv_heads : 1, keyHeads = heads / shared;
  out.fill(0);
  for (let b = 0; b < B; b++) {
    const start = spans[2 * b], n = spans[2 * b + 1] - start, wide = roundUp(n, PANEL);
    const scores = scratch, keys = scores + QUERIES_TOGETHER * wide, values = keys + wide * D;
    for (let keyHead = 0; keyHead < keyHeads; keyHead++) {
      const k = place + start * N + C + keyHead * D;
      workspace.pack(workspace.floats, k, D, n, 1, N, keys); // k^T: a panel for 8 keys
      for (let head = keyHead * shared; head < (keyHead + 1) * shared; head++) {
        for (let first = 0; first < n; first += QUERIES_TOGETHER) {
          const last = Math.min(first + QUERIES_TOGETHER, n), rows = last - first;
          const low = window ? Math.max(0, first - window) : 0; // the keys that these queries may see: low ... high - 1
          const high = causal ? last : window ? Math.min(n, last + window) : n;
          const from = low - (low % PANEL), columns = roundUp(high - from, PANEL);
          workspace.floats.fill(0, scores, scores + rows * columns);
          workspace.multiply(place + (start + first) * N + head * D, N, keys + from * D, scores, columns, rows, D, columns);
          for (let i = 0; i < rows; i++) {
            const query = first + i, at = scores + i * columns - from;
            const begin = window ? Math.max(0, query - window) : 0;
            const end = causal ? query + 1 : window ? Math.min(n, query + window + 1) : n;
            softmaxRow(workspace.floats, at, begin, end, scale, bias, head * R + (R >> 1) - query, query, R >> 1);
            workspace.floats.fill(0, at + from, at + begin);
            workspace.floats.fill(0, at + end, at + from + columns);
          }
          const v = k + keyHeads * D + from * N;
          workspace.pack(workspace.floats, v, high - from, D, N, 1, values);
          workspace.multiply(scores, columns, values, outPlace + (start + first) * C + head * D, C, rows, high - from, D);
        }
      }
    }
  }
}

/** exp(s - max) / sum for the scores of one query with the keys begin ... end - 1; bias, if any, by the clipped distance. */
function softmaxRow(f, at, begin, end, scale, bias, biasAt, query, reach) {
  let most = -Infinity, sum = 0;
  for (let j = begin; j < end; j++) {
    const added = bias ? bias[biasAt + Math.min(Math.max(j, query - reach), query + reach)] : 0;
    f[at + j] = f[at + j] * scale + added;
    most = Math.max(most, f[at + j]);
  }
  for (let j = begin; j < end; j++) sum += f[at + j] = Math.exp(f[at + j] - most);
  for (let j = begin; j < end; j++) f[at + j] /= sum;
}

const roundUp = (n, step) => Math.ceil(n / step) * step;

/**
 * A graph and its weights, ready for batches.
 * @param {{ tensors: object[], output: number }} form a form of engine.json
 * @param {Map<string, Float32Array>} weights
 * @param {{ simd?: boolean }} options false: plain JavaScript only
 * @returns {{ simd: boolean, run: (batch: object, keep?: number[]) => any }} run gives the output (B, C) of a batch (batch.js); with
 *   `keep`, indices of tensors, { output, kept: Map of these }
 */
export function compilePlain({ tensors, output }, weights, { simd = true } = {}) {
  const workspace = new Workspace(simd);
  const packed = new Map(); // tensor -> the place of its panels
  const rest = new Map(weights); // what is not packed: the matrices need not stay in memory twice
  for (const { op, inputs } of tensors) {
    if (op !== 'linear' && op !== 'linear_add') continue;
    const index = inputs[1], { name, shape: [K, N] } = tensors[index];
    if (packed.has(index)) continue;
    packed.set(index, workspace.reserve(K * roundUp(N, PANEL)));
    workspace.pack(weights.get(name), 0, K, N, N, 1, packed.get(index));
    rest.delete(name);
  }
  const whole = workspace.used;
  const isAttention = (t) => t.op === 'attention' || t.op === 'attention_bias';

  /** Reserve a place for each tensor that is computed: those of one buffer share one, as only one of them is needed at a time. */
  function placeResults(sizes, longest, apart) {
    workspace.used = whole;
    const count = (t) => t.shape.reduce((product, d) => product * (sizes[d] ?? d), 1);
    const most = new Map();
    const computed = tensors.map((t, i) => ({ t, i, key: apart.includes(i) ? `kept ${i}` : t.buffer })).filter(({ t }) => t.op);
    for (const { t, key } of computed) most.set(key, Math.max(most.get(key) ?? 0, count(t)));
    const buffers = new Map([...most].map(([key, size]) => [key, workspace.reserve(size)]));
    const head = Math.max(0, ...tensors.filter(isAttention).map((t) => t.attrs.head_size));
    const wide = roundUp(longest, PANEL);
    const scratch = workspace.reserve(wide * (QUERIES_TOGETHER + head + roundUp(head, PANEL)));
    return { places: new Map(computed.map(({ t, i, key }) => [i, { place: buffers.get(key), size: count(t) }])), scratch };
  }

  function run({ arrays, sizes }, keep = []) {
    let longest = 0;
    for (let b = 0; b < sizes.B; b++) longest = Math.max(longest, arrays.spans[2 * b + 1] - arrays.spans[2 * b]);
    const { places, scratch } = placeResults(sizes, longest, keep);
    const array = (i) => {
      const found = places.get(i);
      if (found) return workspace.floats.subarray(found.place, found.place + found.size);
      return tensors[i].weight ? rest.get(tensors[i].name) : arrays[tensors[i].name];
    };
    tensors.forEach((t, i) => {
      if (!t.op) return;
      const dims = Object.fromEntries(Object.entries(t.dims).map(([letter, d]) => [letter, sizes[d] ?? d]));
      if (isAttention(t)) dims.B = sizes.B;
      const inputPlaces = t.inputs.map((x) => packed.get(x) ?? places.get(x)?.place);
      const more = { workspace, place: places.get(i).place, places: inputPlaces, scratch };
      OPS[t.op](dims, t.attrs, t.inputs.map(array), array(i), more);
    });
    const found = array(output).slice();
    return keep.length ? { output: found, kept: new Map(keep.map((i) => [i, array(i).slice()])) } : found;
  }

  return { run, simd: workspace.simd };
}
