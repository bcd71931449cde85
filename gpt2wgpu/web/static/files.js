// The files of an exported folder: fetched, compared with what the export wrote down, or refused by name.

import { EngineError } from './errors.js';

/**
 * A file as the server has it now.
 * @param {RequestCache} cache 'no-cache': the server is asked whether what the browser kept is right; 'no-store': it is not used
 * @returns {Promise<Response>} Throws EngineError where there is no such file.
 */
export async function fetchFile(url, cache = 'no-cache') {
  let response;
  try {
    response = await fetch(url, { cache });
  } catch (error) {
    throw new EngineError(`${url} cannot be loaded (${error.message}): check the address and the connection`);
  }
  if (!response.ok) throw new EngineError(`${url} cannot be loaded (${response.status}): is the whole exported folder there?`);
  return response;
}

/** The address of a folder, with a slash at its end. Throws EngineError. */
export function folderAddress(url) {
  try {
    return new URL(`${url}`.replace(/\/?$/, '/'), globalThis.location?.href);
  } catch {
    throw new EngineError(`${JSON.stringify(`${url}`)} is not the address of a folder: give that of an exported one`);
  }
}

/** All bytes of a file. @returns {Promise<Uint8Array<ArrayBuffer>>} */
export async function readFile(url) {
  const response = await fetchFile(url);
  try {
    return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    throw new EngineError(`${url} ended early (${error.message}): check the connection, and reload the page`);
  }
}

/** The value of JSON in UTF-8. Throws EngineError with the file's name, as where a server sends a page of its own instead. */
export function parseJson(bytes, name) {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (error) {
    throw new EngineError(`${name} is not JSON (${error.message.split('\n')[0]}): export it again, or check what the server sends`);
  }
}

/** What `load` imports. Throws EngineError with the module's name. */
export async function importModule(name, load) {
  try {
    return await load();
  } catch (error) {
    const what = `${name}, or a file that it imports, cannot be loaded`;
    throw new EngineError(`${what} (${error.message}): is the whole exported folder there?`);
  }
}

/**
 * Which file of a module is missing: the module, or one that it imports. Browsers say of a worker only that it failed.
 * @param {URL} url of the module
 * @param {Set<string>} seen addresses of modules that were found
 * @returns {Promise<string>} one line that names the file; '' if none is missing
 */
export async function findMissing(url, seen = new Set()) {
  if (seen.has(url.href)) return '';
  seen.add(url.href);
  let source;
  try {
    const response = await fetchFile(url, 'no-store');
    const type = response.headers.get('content-type') ?? 'no type';
    if (!type.includes('javascript')) return `${url} is sent as ${type}, not as JavaScript: is the whole exported folder there?`;
    source = await response.text();
  } catch (error) {
    return error.message;
  }
  for (const [, name] of source.matchAll(/^import .* from '(.*)';$/gm)) {
    const missing = await findMissing(new URL(name, url), seen);
    if (missing) return missing;
  }
  return '';
}

/** Compare bytes with their SHA-256 in engine.json. Throws EngineError. note: is told where a page cannot compute one. */
export async function checkDigest(bytes, expected, name, note) {
  if (!globalThis.crypto?.subtle) return note('the files were not compared with their SHA-256: that needs https or localhost');
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('');
  if (found === expected) return;
  const what = `${name} is not what the export wrote (another SHA-256)`;
  throw new EngineError(`${what}: reload the page; if that does not help, export it again`);
}

/** Refuse an engine.json whose fields cannot be used. metrics: the names of those that `similarity` has. Throws EngineError. */
export function checkAbout(about, format, metrics) {
  if (about?.format !== format) {
    throw new EngineError(`engine.json has format ${about?.format}, engine.js reads ${format}: take both from one export`);
  }
  const { width, dimensions, similarity, checks, text, weights, digests, forms } = about;
  const isVector = (v) => Array.isArray(v) && v.length === width && v.every(Number.isFinite);
  const right = {
    dimensions: Number.isInteger(dimensions) && dimensions >= 1 && dimensions <= width,
    similarity: metrics.includes(similarity),
    checks: checks?.length === 3 && checks.every((check) => typeof check?.text === 'string' && isVector(check.vector)),
    text: Number.isInteger(text?.max_length) && Array.isArray(text.head) && Array.isArray(text.tail),
    prompts: typeof about.prompts === 'object' && about.prompts !== null,
    weights: typeof weights?.file === 'string' && Number.isInteger(weights.bytes),
    digests: typeof digests?.['tokenizer.json'] === 'string',
    forms: Array.isArray(forms?.f32?.tensors),
  };
  const wrong = Object.keys(right).find((name) => !right[name]);
  if (wrong) throw new EngineError(`engine.json has no ${wrong} that engine.js can use: take both from one export, or export it again`);
}
