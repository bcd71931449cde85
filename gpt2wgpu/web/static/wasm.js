// The WebAssembly with SIMD that the CPU path runs, written byte by byte when the page loads: a tile of a matrix product, and the
// activations that are gates. No compiler and no file: each instruction is an array of its bytes in WebAssembly's binary format
// (webassembly.github.io/spec/core/binary), and a function is those of its instructions, one after the other.

import { GATES } from './activations.js';

export const PANEL = 8; // columns of a tile: two vectors
export const TILE_ROWS = 4; // 4 x 8 sums are 8 vectors: as many as keep two multipliers busy, and they fit 16 registers

const unsigned = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...unsigned(n >> 7)]);
const signed = (n) => (n < 64 ? [n] : [(n & 127) | 128, ...signed(n >> 7)]); // of a number that is not negative
const list = (parts) => [...unsigned(parts.length), ...parts.flat()];
const section = (id, parts) => [id, ...unsigned(list(parts).length), ...list(parts)];
const word = (text) => list([...text].map((c) => c.charCodeAt(0)));
const I32 = 0x7f, V128 = 0x7b;

const get = (local) => [0x20, ...unsigned(local)];
const set = (local) => [0x21, ...unsigned(local)];
const number = (n) => [0x41, ...signed(n)];
const ADD = 0x6a, SUBTRACT = 0x6b, LOOP = [0x03, 0x40], AGAIN_UNLESS_ZERO = [0x0d, 0], END = 0x0b;
const simd = (op, ...rest) => [0xfd, ...unsigned(op), ...rest];
const load = (offset) => simd(0x00, 4, ...unsigned(offset));
const spread = simd(0x09, 2, 0); // load one number into all four lanes
const store = (offset) => simd(0x0b, 4, ...unsigned(offset));
const constant = (x) => simd(0x0c, ...new Uint8Array(new Float32Array(4).fill(x).buffer));
const integers = (n) => simd(0x0c, ...new Uint8Array(new Int32Array(4).fill(n).buffer));
const plus = simd(0xe4), minus = simd(0xe5), times = simd(0xe6), over = simd(0xe7), least = simd(0xe8), most = simd(0xe9);
const nearest = simd(0x6a), truncate = simd(0xf8), addIntegers = simd(0xae), shiftLeft = simd(0xab);
const fusedTimesPlus = simd(0x105); // f32x4.relaxed_madd: one instruction, where a browser and a CPU have it

/** A function: its parameters are integers, its code is any nesting of arrays of bytes. */
function writeFunction(moreIntegers, vectors, code) {
  const locals = [...(moreIntegers ? [[moreIntegers, I32]] : []), [vectors, V128]];
  const body = [...list(locals), ...code.flat(Infinity), END];
  return [...unsigned(body.length), ...body];
}

/**
 * c[row, :] += a[row, :] b for a tile of so many rows: a (rows, k), b a panel (k, 8), c (rows, 8); `plainTile` in multiply.js says
 * it in JavaScript. Its parameters: a, the bytes from row to row of a, b, c, the bytes from row to row of c, and k, at least 1.
 */
function writeTile(rows, fused) {
  const [a, strideA, b, c, strideC, k] = [0, 1, 2, 3, 4, 5];
  const rowA = [a], rowC = [c], sums = [], code = [];
  let next = 6; // the first local after the parameters
  for (let r = 1; r < rows; r++) {
    rowA.push(next++);
    rowC.push(next++);
    code.push(get(rowA[r - 1]), get(strideA), ADD, set(rowA[r]), get(rowC[r - 1]), get(strideC), ADD, set(rowC[r]));
  }
  const moreIntegers = next - 6;
  for (let r = 0; r < rows; r++) {
    sums.push([next++, next++]);
    code.push(get(rowC[r]), load(0), set(sums[r][0]), get(rowC[r]), load(16), set(sums[r][1]));
  }
  const left = next++, right = next++, x = next++;
  code.push(LOOP, get(b), load(0), set(left), get(b), load(16), set(right));
  for (let r = 0; r < rows; r++) {
    code.push(get(rowA[r]), spread, set(x), get(rowA[r]), number(4), ADD, set(rowA[r]));
    for (const [sum, half] of [[sums[r][0], left], [sums[r][1], right]]) {
      code.push(get(x), get(half), fused ? [get(sum), fusedTimesPlus] : [times, get(sum), plus], set(sum));
    }
  }
  code.push(get(b), number(4 * PANEL), ADD, set(b), get(k), number(1), SUBTRACT, set(k), get(k), AGAIN_UNLESS_ZERO, END);
  for (let r = 0; r < rows; r++) code.push(get(rowC[r]), get(sums[r][0]), store(0), get(rowC[r]), get(sums[r][1]), store(16));
  return writeFunction(moreIntegers, next - 6 - moreIntegers, code);
}

/** x / (1 + exp(-2x P(x^2))) in place. Its parameters: where, and how many vectors of four, at least 1. */
function writeGate(coefficients) {
  const [at, count, x, u, n, p] = [0, 1, 2, 3, 4, 5];
  const horner = (variable, numbers) => {
    const [highest, ...lower] = numbers.toReversed();
    return [constant(highest), lower.map((c) => [get(variable), times, constant(c), plus])];
  };
  const code = [
    LOOP, get(at), load(0), set(x),
    get(x), get(x), times, set(p), // x^2
    horner(p, coefficients.map((c) => -2 * c)), get(x), times, constant(-87), most, constant(88), least, set(u),
    // exp(u) = 2^n exp(p), n = round(u / ln 2), |p| <= ln 2 / 2; ln 2 in two parts, so that p is exact
    get(u), constant(Math.LOG2E), times, nearest, set(n),
    get(u), get(n), constant(0.693359375), times, minus, get(n), constant(-2.12194440e-4), times, minus, set(p),
    horner(p, [1, 1, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720]), // Taylor's series, within 2e-7
    get(n), truncate, integers(127), addIntegers, number(23), shiftLeft, times, // 2^n from its bits
    constant(1), plus, set(p),
    get(at), get(x), get(p), over, store(0),
    get(at), number(16), ADD, set(at), get(count), number(1), SUBTRACT, set(count), get(count), AGAIN_UNLESS_ZERO, END,
  ];
  return writeFunction(0, 4, code);
}

/** A module that imports the memory m.m and exports tile1 ... tile4 and a function for each of GATES. */
export function writeModule(fused) {
  const tiles = Array.from({ length: TILE_ROWS }, (_, i) => [`tile${i + 1}`, 0, writeTile(i + 1, fused)]);
  const functions = [...tiles, ...Object.entries(GATES).map(([name, coefficients]) => [name, 1, writeGate(coefficients)])];
  const type = (count) => [0x60, ...list(Array(count).fill([I32])), 0]; // so many integers in, nothing out
  return new Uint8Array([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // "\0asm", version 1
    ...section(1, [type(6), type(2)]),
    ...section(2, [[...word('m'), ...word('m'), 2, 0, 1]]), // a memory of at least one page
    ...section(3, functions.map(([, kind]) => [kind])),
    ...section(7, functions.map(([name], i) => [...word(name), 0, i])),
    ...section(10, functions.map(([, , body]) => body)),
  ]);
}
