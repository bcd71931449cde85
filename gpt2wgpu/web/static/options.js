// The options of a call: names and types are checked in one place, so that a wrong one is refused and never ignored.

import { EngineError } from './errors.js';

export const LOAD = { device: 'string', dtype: 'string', cache: 'boolean', progress: 'function', gpu: 'object' };
export const ENCODE = { prompt: 'string', promptName: 'string', normalize: 'boolean', truncate: 'boolean', dimensions: 'number' };

/** A value in a message. */
const showValue = (value) => (typeof value === 'string' ? JSON.stringify(value) : String(value));

/**
 * The options that are given; null counts as not given. Throws EngineError for an unknown name and for another type.
 * @param {string} call its name, for messages
 * @param {object | null | undefined} options
 * @param {Record<string, string>} types of each option: what typeof says
 */
export function readOptions(call, options, types) {
  if (typeof (options ?? {}) !== 'object') throw new EngineError(`the options of ${call} must be an object, not ${describe(options)}`);
  const given = Object.entries(options ?? {}).filter(([, value]) => value !== undefined && value !== null);
  for (const [name, value] of given) {
    const known = Object.keys(types).join(', ');
    if (!Object.hasOwn(types, name)) throw new EngineError(`${call} has no option ${JSON.stringify(name)}: it has ${known}`);
    if (typeof value !== types[name]) throw new EngineError(`${name} must be a ${types[name]}, not ${describe(value)}`);
  }
  return Object.fromEntries(given);
}

const describe = (value) => (typeof value === 'object' ? 'an object' : typeof value === 'function' ? 'a function' : showValue(value));

/** Throws EngineError for a value that is not among those known. */
export function checkChoice(name, value, known) {
  if (!known.includes(value)) throw new EngineError(`${name} must be ${known.join(', ')}, not ${showValue(value)}`);
}
