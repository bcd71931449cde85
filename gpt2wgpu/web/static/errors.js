/** What cannot be done: what was expected, what was found, what to do. One line. */
export class EngineError extends Error {
  name = 'EngineError';
}
