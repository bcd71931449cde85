// Unpacks the data, and makes elements. Texts of the user become text nodes only.
"use strict";

const reading = { data: null, buffer: null };

async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("data").textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const whole = await new Response(stream).arrayBuffer();
  const size = new DataView(whole).getUint32(0, true);
  reading.data = JSON.parse(new TextDecoder().decode(new Uint8Array(whole, 4, size)));
  reading.buffer = new Uint8Array(whole, 4 + size);
  return reading.data;
}

// The values of matrix number `which` of a packed array, row by row; `largest` of them is the largest.
function matrixOf(packed, which = 0) {
  const count = packed.shape.slice(-2).reduce((x, y) => x * y);
  const largest = packed.largest[which];
  const values = new Float64Array(count);
  for (let i = 0; i < count; i++) {
    let q = reading.buffer[packed.at + which * count + i];
    if (packed.signed && q > 127) q -= 256;
    const share = q / packed.steps;
    values[i] = largest * (packed.root ? share * Math.abs(share) : share);
  }
  return { values, largest };
}

function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "onclick" || key === "oninput") made.addEventListener(key.slice(2), value);
    else if (key === "css") Object.assign(made.style, value);
    else made.setAttribute(key, value);
  }
  made.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined));
  return made;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const p = (...children) => el("p", {}, ...children);
const b = (text, kind = "") => el("b", kind ? { class: kind } : {}, text);
const code = (text) => el("code", {}, text);
const show = (x, digits = 4) => (Object.is(x, -0) ? 0 : x).toFixed(digits).replace("-", "−");
const signed = (x, digits = 4) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(digits);
const percent = (x) => (100 * x >= 99.95 ? "100" : (100 * x).toFixed(100 * x < 9.95 ? 1 : 0)) + " %";
const sum = (list) => list.reduce((total, x) => total + x, 0);
const many = (n, one, more = one + "s") => `${n.toLocaleString("en")} ${n === 1 ? one : more}`;
const tokenName = (token) => token.name || "(nothing)";
const letter = (i) => "AB"[i];

// --- colours, read again when the page turns dark

function colour(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  return [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
}

// A function from -1 ... 1 to a colour: minus, paper, plus.
function diverging() {
  const [minus, paper, plus] = ["minus", "paper", "plus"].map(colour);
  return (x) => blend(paper, x < 0 ? minus : plus, Math.min(1, Math.abs(x)));
}

// A function from 0 ... 1 to a colour; small values stay visible.
function rising(name = "reads") {
  const [paper, full] = [colour("paper"), colour(name)];
  return (x) => blend(paper, full, Math.sqrt(Math.max(0, Math.min(1, x))));
}

const blend = (from, to, share) => from.map((x, i) => Math.round(x + (to[i] - x) * share));

const painters = [];
function paint(draw) {
  painters.push(draw);
  draw();
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => painters.forEach((draw) => draw()));

// --- what is under the pointer

const tip = document.getElementById("tip");

function tell(event, text) {
  tip.textContent = text;
  tip.hidden = !text;
  const { clientX: x, clientY: y } = event;
  tip.style.left = `${Math.min(x + 12, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${y + 16 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 16}px`;
}

// Tell what `describe(row, column)` says of the cell under the pointer of a canvas.
function tellCells(canvas, rows, columns, describe, chosen = () => {}) {
  const cell = (event) => {
    const box = canvas.getBoundingClientRect();
    const at = (size, n) => Math.max(0, Math.min(n - 1, Math.floor(size * n)));
    return [at((event.clientY - box.top) / box.height, rows), at((event.clientX - box.left) / box.width, columns)];
  };
  const move = (event) => {
    const [i, j] = cell(event);
    tell(event, describe(i, j));
    chosen(i, j);
  };
  canvas.addEventListener("pointermove", move);
  canvas.addEventListener("pointerdown", move);
  canvas.addEventListener("pointerleave", () => (tip.hidden = true));
}
addEventListener("scroll", () => (tip.hidden = true), { passive: true });
