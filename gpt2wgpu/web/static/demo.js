// The page: a search in a list of sentences, and what makes two of them alike. The engine computes in a worker.

import { openAdapter } from './gpu.js';
import { loadWorkerEngine } from './worker_client.js';

const at = (id) => document.getElementById(id);
const device = new URLSearchParams(location.search).get('device') ?? 'auto';
const MEGABYTE = 1e6;
const MOMENT = 300; // milliseconds that a result may take before the page says that it computes
const STAGES = { kernels: 'Compiling the kernels', check: 'Comparing three vectors with those that Python computed' };

const MEASURES = {
  cosine: 'cosine similarity, from −1 to 1',
  dot: 'dot product',
  euclidean: 'minus the distance',
  manhattan: 'minus the distance along the axes',
};

const failures = new Map(); // id of what could not be computed -> the error
let ready = ''; // what the status says where nothing failed

/** An element with a text and attributes. */
function make(tag, text, attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  return Object.assign(element, attributes);
}

/** A number with a real minus sign, and none before zero. */
const signed = (x, digits) => x.toFixed(digits).replace(/^-(0\.0*)$/, '$1').replace('-', '−');

/**
 * A function that runs `work`, and once more if it was called meanwhile; never two at a time. If that takes longer than a moment,
 * the element of the id, which shows the result, is marked as busy.
 */
function latest(id, work) {
  let running = false, again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    const timer = setTimeout(() => at(id).setAttribute('aria-busy', 'true'), MOMENT);
    while (again) {
      again = false;
      await work().then(() => failures.delete(id), (error) => failures.set(id, error));
    }
    clearTimeout(timer);
    at(id).setAttribute('aria-busy', 'false');
    at(id).classList.toggle('stale', failures.has(id));
    showStatus();
    running = false;
  };
}

/** What a call gives. Its error names the field instead of "text 0". */
async function inField(names, call) {
  try {
    return await call;
  } catch (error) {
    error.message = error.message.replace(/\btext (\d+)\b/, (_, i) => names[i]);
    throw error;
  }
}

/** The first failure, or that the page is ready. An equal text is not set again: screen readers would say it again. */
function showStatus() {
  const [error] = failures.values();
  const text = error?.message ?? ready;
  at('status').className = error ? 'failed' : 'ready';
  if (at('stage').textContent !== text) at('stage').textContent = text;
}

/** Say beside the stages of loading that a software driver, where WebGPU was asked for, is slow. */
async function showHint() {
  const { adapter, name } = await openAdapter(navigator.gpu, false);
  if (adapter || !name || at('progress').hidden) return;
  const why = `WebGPU is a software driver here (${name}): it can take minutes to compile the kernels, and the CPU is faster. `;
  at('hint').replaceChildren(why, make('a', 'Compute on the CPU', { href: '?device=cpu' }));
  at('hint').hidden = false;
}

function showProgress({ stage, loaded, total, cached }) {
  const megabytes = (bytes) => (bytes / MEGABYTE).toFixed(1);
  const from = cached ? 'Reading the model from this browser' : 'Downloading the model';
  const text = stage === 'weights' ? `${from}: ${megabytes(loaded)} of ${megabytes(total)} MB` : `${STAGES[stage]} …`;
  at('stage').textContent = text;
  if (stage === 'weights') Object.assign(at('progress'), { max: total, value: loaded });
  else at('progress').removeAttribute('value');
}

function endProgress() {
  at('progress').hidden = at('hint').hidden = true;
}

function showReady(engine, seconds) {
  const place = engine.device === 'webgpu' ? `WebGPU, ${engine.adapter}` : engine.adapter;
  ready = `Ready after ${seconds.toFixed(1)} s. Computed on: ${place}`;
  showStatus();
  endProgress();
  at('dimensions').textContent = `${engine.dimensions} numbers`;
  at('measure').textContent = MEASURES[engine.metric];
  const facts = {
    Model: engine.model,
    Device: engine.reason ? `${place} (${engine.reason})` : place,
    Numbers: engine.dtype === 'f16' ? '16 bits in products, 32 elsewhere' : '32 bits',
    'Self-check': 'three vectors agree with Python’s',
    ...(engine.notices.length && { Note: engine.notices.join('; ') }),
  };
  at('facts').replaceChildren(...Object.entries(facts).flatMap(([name, fact]) => [make('dt', name), make('dd', fact)]));
}

/** The search: sentences are computed when they change, the query with every letter. */
function startSearch(engine) {
  let vectors = [], sentences = [];
  return latest('found', async () => {
    const wanted = at('sentences').value.split('\n').map((line) => line.trim()).filter(Boolean);
    const query = at('query').value;
    const started = performance.now();
    if (wanted.join('\n') !== sentences.join('\n')) {
      vectors = await inField(wanted.map((_, i) => `sentence ${i + 1} of the list`), engine.encodeDocument(wanted));
      sentences = wanted;
      at('took').textContent = `${sentences.length} vectors in ${Math.round(performance.now() - started)} ms`;
    }
    const scores = engine.similarity(await inField(['the query'], engine.encodeQuery(query)), vectors);
    const order = [...scores.keys()].sort((i, j) => scores[j] - scores[i]);
    at('results').replaceChildren(...order.map((i) => {
      const row = make('li', '');
      row.append(make('span', signed(scores[i], 2)), make('i', ''), make('b', sentences[i], { dir: 'auto' }));
      row.style.setProperty('--part', `${Math.max(0, Math.min(1, scores[i])) * 100}%`);
      return row;
    }));
  });
}

/** Colour an element by what it adds, against the most that one adds. */
function shade(element, share, most) {
  element.style.setProperty('--of', share < 0 ? 'var(--minus)' : 'var(--plus)');
  element.style.setProperty('--strength', String(Math.min(1, Math.abs(share) / most) * 0.55));
  return element;
}

function showTokens(id, { tokens, shares }) {
  const most = Math.max(...shares.map(Math.abs), 1e-9);
  at(id).replaceChildren(...tokens.map((token, i) => {
    const chip = shade(make('span', token.trim() || '␣'), shares[i], most);
    chip.append(make('i', signed(shares[i], 3), { dir: 'ltr' }));
    return chip;
  }));
}

function showPairs(pairs, rows, columns) {
  const most = Math.max(...pairs.flat().map(Math.abs), 1e-9);
  const head = make('tr', '');
  head.append(make('td', ''), ...columns.map((token) => make('th', token.trim() || '␣')));
  at('pairs').replaceChildren(head, ...pairs.map((row, i) => {
    const line = make('tr', '');
    line.append(make('th', rows[i].trim() || '␣'), ...row.map((share) => shade(make('td', signed(share, 3)), share, most)));
    return line;
  }));
}

function startCompare(engine) {
  at('explained').hidden = !(engine.explains && engine.metric === 'cosine');
  return latest('compared', async () => {
    const texts = [at('first').value, at('second').value];
    const [a, b] = await inField(['the first sentence', 'the second sentence'], engine.encode(texts));
    at('score').textContent = signed(engine.similarity(a, b), 3);
    if (at('explained').hidden) return;
    const { cosine, texts: parts, pairs } = await engine.explain(...texts);
    at('total').textContent = signed(cosine, 3);
    showTokens('tokens-first', parts[0]);
    showTokens('tokens-second', parts[1]);
    showPairs(pairs, parts[0].tokens, parts[1].tokens);
  });
}

async function start() {
  at('unstarted').remove();
  at('progress').hidden = false;
  at('device').value = device;
  // an option that is not there shows what was asked for, so that any other can be chosen
  if (at('device').selectedIndex < 0) at('device').prepend(new Option(`${device}, which is unknown`, device, true, true));
  at('device').addEventListener('change', ({ target }) => location.assign(`?device=${target.value}`));
  if (device === 'webgpu') showHint().catch(() => {}); // loading fails for the same reason, and says so
  const started = performance.now();
  const engine = await loadWorkerEngine(undefined, { device, progress: showProgress });
  showReady(engine, (performance.now() - started) / 1000);
  document.querySelector('main').hidden = false;
  const search = startSearch(engine), compare = startCompare(engine);
  for (const id of ['query', 'sentences']) at(id).addEventListener('input', search);
  for (const id of ['first', 'second']) at(id).addEventListener('input', compare);
  await search();
  await compare();
}

await start().catch((error) => {
  failures.set('status', error);
  showStatus();
  endProgress();
});
document.documentElement.dataset.ready = failures.size ? 'failed' : 'yes';
