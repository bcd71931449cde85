// The page: a search in a list of sentences, and what makes two of them alike. The engine computes in a worker.

import { loadWorkerEngine } from './worker_client.js';

const at = (id) => document.getElementById(id);
const device = new URLSearchParams(location.search).get('device') ?? 'auto';
const MEGABYTE = 1e6;
const STAGES = { kernels: 'Compiling the kernels', check: 'Comparing three vectors with those that Python computed' };

const MEASURES = {
  cosine: 'cosine similarity, from −1 to 1',
  dot: 'dot product',
  euclidean: 'minus the distance',
  manhattan: 'minus the distance along the axes',
};

/** An element with a text and classes. */
function make(tag, text, name = '') {
  const element = document.createElement(tag);
  element.textContent = text;
  element.className = name;
  return element;
}

/** A number with a real minus sign, and none before zero. */
const signed = (x, digits) => x.toFixed(digits).replace(/^-(0\.0*)$/, '$1').replace('-', '−');

/** A function that runs `work`, and once more if it was called meanwhile; never two at a time. */
function latest(work) {
  let running = false, again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    try {
      while (again) {
        again = false;
        await work();
      }
    } catch (error) {
      showFailure(error);
    } finally {
      running = false;
    }
  };
}

function showProgress({ stage, loaded, total, cached }) {
  const megabytes = (bytes) => (bytes / MEGABYTE).toFixed(1);
  const from = cached ? 'Reading the model from this browser' : 'Downloading the model';
  const text = stage === 'weights' ? `${from}: ${megabytes(loaded)} of ${megabytes(total)} MB` : `${STAGES[stage]} …`;
  at('stage').textContent = text;
  if (stage === 'weights') Object.assign(at('progress'), { max: total, value: loaded });
  else at('progress').removeAttribute('value');
}

function showFailure(error) {
  at('status').className = 'failed';
  at('stage').textContent = error.message;
  at('progress').hidden = true;
  document.documentElement.dataset.ready = 'failed';
}

function showReady(engine, seconds) {
  const place = engine.device === 'webgpu' ? `WebGPU, ${engine.adapter}` : engine.adapter;
  at('status').className = 'ready';
  at('stage').textContent = `Ready after ${seconds.toFixed(1)} s. Computed on: ${place}`;
  at('progress').hidden = true;
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
  return latest(async () => {
    const wanted = at('sentences').value.split('\n').map((line) => line.trim()).filter(Boolean);
    const query = at('query').value;
    const started = performance.now();
    if (wanted.join('\n') !== sentences.join('\n')) {
      vectors = await engine.encodeDocument(wanted);
      sentences = wanted;
      at('took').textContent = `${sentences.length} vectors in ${Math.round(performance.now() - started)} ms`;
    }
    const scores = engine.similarity(await engine.encodeQuery(query), vectors);
    const order = [...scores.keys()].sort((i, j) => scores[j] - scores[i]);
    at('results').replaceChildren(...order.map((i) => {
      const row = make('li', '');
      row.append(make('span', signed(scores[i], 2)), make('i', ''), make('b', sentences[i]));
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
    chip.append(make('i', signed(shares[i], 3)));
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
  return latest(async () => {
    const texts = [at('first').value, at('second').value];
    const [a, b] = await engine.encode(texts);
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
  at('device').value = device;
  at('device').addEventListener('change', ({ target }) => location.assign(`?device=${target.value}`));
  const started = performance.now();
  const engine = await loadWorkerEngine(undefined, { device, progress: showProgress });
  showReady(engine, (performance.now() - started) / 1000);
  document.querySelector('main').hidden = false;
  const search = startSearch(engine), compare = startCompare(engine);
  for (const id of ['query', 'sentences']) at(id).addEventListener('input', search);
  for (const id of ['first', 'second']) at(id).addEventListener('input', compare);
  await search();
  await compare();
  document.documentElement.dataset.ready ??= 'yes';
}

start().catch(showFailure);
