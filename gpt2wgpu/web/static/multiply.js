// Matrix products on the CPU. A matrix (K, N) is packed once into panels of 8 columns, zeros behind the last; a tile of up to 4
// rows and one panel is then computed with all its sums in registers. The tile exists twice: as plain JavaScript, which says what
// it computes, and as WebAssembly with SIMD (wasm.js), which is many times as fast.

import { GATES } from './activations.js';
import { PANEL, TILE_ROWS, writeModule } from './wasm.js';

const ROWS_TOGETHER = 64; // rows that a panel is multiplied with at a time: they stay in a core's second-level cache
const PAGE = 1 << 16; // bytes of WebAssembly's memory

/** c[row, :] += a[row, :] b for a tile: a (rows, k) and c (rows, 8) with so many numbers from row to row, b a panel (k, 8). */
function plainTile(f, rows, a, strideA, b, c, strideC, k) {
  for (let row = 0; row < rows; row++, a += strideA, c += strideC) {
    let c0 = f[c], c1 = f[c + 1], c2 = f[c + 2], c3 = f[c + 3];
    let c4 = f[c + 4], c5 = f[c + 5], c6 = f[c + 6], c7 = f[c + 7];
    for (let i = 0, at = b; i < k; i++, at += PANEL) {
      const x = f[a + i];
      c0 += x * f[at];
      c1 += x * f[at + 1];
      c2 += x * f[at + 2];
      c3 += x * f[at + 3];
      c4 += x * f[at + 4];
      c5 += x * f[at + 5];
      c6 += x * f[at + 6];
      c7 += x * f[at + 7];
    }
    f[c] = c0, f[c + 1] = c1, f[c + 2] = c2, f[c + 3] = c3;
    f[c + 4] = c4, f[c + 5] = c5, f[c + 6] = c6, f[c + 7] = c7;
  }
}

/** Numbers in one memory, and products of matrices among them. Places are counted in numbers, not in bytes. */
export class Workspace {
  /** @param {boolean} simd false: plain JavaScript only */
  constructor(simd = true) {
    const bytes = simd && [true, false].map(writeModule).find((b) => globalThis.WebAssembly?.validate(b));
    try {
      if (bytes) {
        this.memory = new WebAssembly.Memory({ initial: 1, maximum: 65536 });
        const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { m: { m: this.memory } });
        this.functions = exports;
        this.tiles = [null, exports.tile1, exports.tile2, exports.tile3, exports.tile4];
      }
    } catch {
      this.memory = undefined; // a page may forbid WebAssembly: then in plain JavaScript
    }
    this.simd = this.memory !== undefined;
    this.floats = new Float32Array(this.memory?.buffer ?? PANEL);
    this.used = PANEL * TILE_ROWS; // at the beginning: a tile whose panel is not full
  }

  /** A place for so many more numbers. Arrays that were cut from `floats` before may no longer be its parts. */
  reserve(count) {
    const place = this.used;
    this.used = Math.ceil((place + count) / PANEL) * PANEL;
    if (this.used > this.floats.length) {
      if (this.memory) {
        this.memory.grow(Math.ceil((4 * this.used - this.memory.buffer.byteLength) / PAGE));
        this.floats = new Float32Array(this.memory.buffer);
      } else {
        const larger = new Float32Array(Math.max(this.used, 1.5 * this.floats.length));
        larger.set(this.floats);
        this.floats = larger;
      }
    }
    return place;
  }

  /** Write b (K, N) in panels to `place`. row: how many numbers lie from row to row; column: from column to column. */
  pack(source, first, K, N, row, column, place) {
    const { floats } = this;
    for (let n = 0; n < N; n += PANEL, place += K * PANEL) {
      const width = Math.min(PANEL, N - n);
      for (let k = 0; k < K; k++) {
        const to = place + k * PANEL, from = first + k * row + n * column;
        for (let i = 0; i < width; i++) floats[to + i] = source[from + i * column];
        for (let i = width; i < PANEL; i++) floats[to + i] = 0;
      }
    }
  }

  /** c += a b, for a (rows, K) at a, packed b (K, N) at b, and c (rows, N) at c, with so many numbers from row to row. */
  multiply(a, strideA, b, c, strideC, rows, K, N) {
    for (let first = 0; first < rows; first += ROWS_TOGETHER) {
      const end = Math.min(first + ROWS_TOGETHER, rows);
      for (let n = 0; n < N; n += PANEL) {
        for (let row = first; row < end; row += TILE_ROWS) {
          const count = Math.min(TILE_ROWS, end - row), at = c + row * strideC + n;
          const whole = N - n >= PANEL;
          if (!whole) this.#copyTile(at, strideC, 0, PANEL, count, N - n);
          this.#tile(count, a + row * strideA, strideA, b + n * K, whole ? at : 0, whole ? strideC : PANEL, K);
          if (!whole) this.#copyTile(0, PANEL, at, strideC, count, N - n);
        }
      }
    }
  }

  /** Apply an activation of GATES in place to `count` numbers, and to up to 3 after them. @returns whether it was done */
  gate(name, place, count) {
    if (!this.simd || !(name in GATES)) return false;
    this.functions[name](4 * place, Math.ceil(count / 4));
    return true;
  }

  #tile(rows, a, strideA, b, c, strideC, k) {
    if (this.simd) this.tiles[rows](4 * a, 4 * strideA, 4 * b, 4 * c, 4 * strideC, k);
    else plainTile(this.floats, rows, a, strideA, b, c, strideC, k);
  }

  #copyTile(from, strideFrom, to, strideTo, rows, columns) {
    for (let r = 0; r < rows; r++, from += strideFrom, to += strideTo) this.floats.copyWithin(to, from, from + columns);
  }
}
