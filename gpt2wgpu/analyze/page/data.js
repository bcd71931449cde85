// What the page carries: texts as JSON; places, codes and numbers as base64 of typed arrays.
const data = JSON.parse(document.getElementById("data").textContent);
const count = data.texts.length;
const find = (id) => document.getElementById(id);

function decode(text, Kind) {
  const raw = atob(text), bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new Kind(bytes.buffer);
}

// Places in a cube from -1 to 1, x y z for each text; z is 0 in two dimensions.
const layouts = data.layouts.map(({ name, dims, places }) => ({ name, dims, raw: decode(places, Uint16Array), at: null }));
function places(layout) {
  if (layout.at === null) {
    layout.at = new Float32Array(layout.raw.length);
    for (let i = 0; i < layout.raw.length; i++) layout.at[i] = layout.raw[i] / 32767.5 - 1;
    if (layout.dims === 2) for (let i = 2; i < layout.at.length; i += 3) layout.at[i] = 0;
  }
  return layout.at;
}

// A column has codes (the number of a name; none: no name) or values (numbers, NaN where there is none).
const none = 65535;
const columns = data.columns.map((c) => c.names
  ? { ...c, codes: decode(c.codes, Uint16Array) }
  : { ...c, values: decode(c.values, Float32Array) });
for (const column of columns) {
  if (!column.names) continue;
  column.sizes = new Uint32Array(column.names.length);
  for (const code of column.codes) if (code !== none) column.sizes[code]++;
}
const near = data.neighbors ? { k: data.neighbors.k, rows: decode(data.neighbors.rows, Uint32Array) } : null;

// --- colours: equally light hues, so that no category shouts
function oklch(light, chroma, hue) {
  const a = chroma * Math.cos(hue * Math.PI / 180), b = chroma * Math.sin(hue * Math.PI / 180);
  const l = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3;
  return [4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s, -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s]
    .map((v) => Math.round(255 * Math.min(1, Math.max(0, v <= 0.0031308 ? 12.92 * v : 1.055 * v ** (1 / 2.4) - 0.055))));
}
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
const hues = [255, 30, 150, 330, 85, 200, 295, 5, 120, 60, 230, 175];
function categoryColour(i) {
  const round = Math.floor(i / hues.length), hue = hues[i % hues.length] + round * 13;
  const light = (dark ? 0.74 : 0.62) + [0, 0.09, -0.09, 0.05, -0.05][round % 5];
  return oklch(light, round % 2 ? 0.11 : 0.155, hue);
}
const plainColour = () => dark ? [127, 176, 255] : [37, 99, 201];
const noColour = () => dark ? [82, 90, 100] : [188, 192, 196];
const ramp = [[0.33, 0.13, 300], [0.48, 0.13, 260], [0.62, 0.11, 205], [0.76, 0.15, 150], [0.9, 0.17, 105]];
function rampColour(t) {
  const x = Math.min(1, Math.max(0, t)) * (ramp.length - 1), i = Math.min(ramp.length - 2, Math.floor(x));
  const mix = ramp[i].map((v, j) => v + (ramp[i + 1][j] - v) * (x - i));
  return oklch(dark ? mix[0] + 0.06 : mix[0] - 0.04, mix[1], mix[2]);
}
const css = (rgb) => `rgb(${rgb.join(" ")})`;
