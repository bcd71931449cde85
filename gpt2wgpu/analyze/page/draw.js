// Points on the canvas: WebGL where there is some, else a plain canvas. Both draw what `view` says, the first `shown` points.
const canvas = find("points"), over = find("labels"), pen = over.getContext("2d");
const view = { layout: layouts[0], yaw: 0, pitch: 0, centre: [0, 0, 0], zoom: 1, width: 1, height: 1, ratio: 1 };
const colours = new Uint8Array(count * 4); // red, green, blue, alpha; alpha 0: hidden
const big = new Uint8Array(count); // 1: found by the search, drawn larger
const order = new Uint32Array(count); // in which points are drawn: shuffled, so that no category covers the others
for (let i = 0; i < count; i++) order[i] = i;
for (let i = count - 1, seed = 1; i > 0; i--) {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  const j = seed % (i + 1), kept = order[i];
  order[i] = order[j]; order[j] = kept;
}

const flat = () => view.layout.dims === 2;
function rotation() {
  if (flat()) return [1, 0, 0, 0, 1, 0, 0, 0, 1];
  const [cy, sy, cp, sp] = [Math.cos(view.yaw), Math.sin(view.yaw), Math.cos(view.pitch), Math.sin(view.pitch)];
  return [cy, 0, sy, sy * sp, cp, -cy * sp, -sy * cp, sp, cy * cp]; // rows
}
const far = 4; // distance of the eye in 3-D, in half cubes
// The free part of the window, beside the panel
function frame() {
  const left = view.width > 640 ? 292 : 0, top = view.width > 640 ? 0 : 0.42 * view.height + 58; // as in style.css
  const width = view.width - left, height = view.height - top;
  return { x: left + width / 2, y: top + height / 2, half: width / 2, scale: (count < 60 ? 0.4 : 0.45) * Math.min(width, height) * (flat() ? 1 : 0.85) };
}
function stretch() { // flat layouts fill a window that is not square only as far as their own form allows
  return frame().scale * view.zoom;
}
function pointSize() {
  const base = count < 60 ? 13 : count < 500 ? 9 : count < 3000 ? 6.2 : count < 20000 ? 4.2 : 2.6;
  return base * Math.min(3.2, Math.max(0.8, view.zoom ** 0.45));
}
// The soft ground costs many pixels for each point: only where there are few points, and while they are close together
const glowSize = () => flat() && count >= 60 && count <= 6000 && view.zoom < 3 ? 90 * Math.min(1.6, view.zoom) : 0;
function project(at, i, turn, box, scale, out) {
  const x = at[3 * i] - view.centre[0], y = at[3 * i + 1] - view.centre[1], z = at[3 * i + 2] - view.centre[2];
  const depth = turn[6] * x + turn[7] * y + turn[8] * z;
  const w = flat() ? 1 : far / Math.max(0.2, far - depth);
  out[0] = box.x + (turn[0] * x + turn[1] * y + turn[2] * z) * scale * w;
  out[1] = box.y - (turn[3] * x + turn[4] * y + turn[5] * z) * scale * w;
  out[2] = w;
  return out;
}

const vertexCode = `
attribute vec3 place; attribute vec4 colour; attribute float found;
uniform mat3 turn; uniform vec3 centre; uniform vec2 scale, middle; uniform float size, far, fog, glow; uniform vec3 ground;
varying vec4 shade; varying float width;
void main() {
  vec3 p = turn * (place - centre);
  float w = far > 0.0 ? far / max(0.2, far - p.z) : 1.0;
  gl_Position = vec4(middle + p.xy * scale * w, far > 0.0 ? -p.z * 0.25 : 0.0, 1.0);
  width = size * (found > 0.5 && glow == 0.0 ? 1.7 : 1.0) * w;
  gl_PointSize = width + 1.0;
  shade = vec4(mix(colour.rgb, ground, fog * clamp(0.5 - 0.5 * p.z, 0.0, 0.8)), colour.a);
  if (colour.a == 0.0) gl_Position = vec4(9.0, 9.0, 9.0, 1.0);
}`;
const fragmentCode = `
precision highp float;
varying vec4 shade; varying float width;
uniform float glow;
void main() {
  if (glow > 0.0) {
    float r = 2.0 * length(gl_PointCoord - 0.5);
    gl_FragColor = vec4(shade.rgb, glow * shade.a * max(0.0, exp(-4.0 * r * r) - 0.018));
    return;
  }
  float edge = (0.5 - length(gl_PointCoord - 0.5)) * (width + 1.0);
  float inside = clamp(edge, 0.0, 1.0);
  if (inside < 0.05) discard;
  gl_FragColor = vec4(shade.rgb, shade.a * inside);
}`;

function startWebGL() {
  const gl = canvas.getContext("webgl", { antialias: false, alpha: false, preserveDrawingBuffer: false });
  if (!gl) return null;
  const program = gl.createProgram();
  for (const [kind, code] of [[gl.VERTEX_SHADER, vertexCode], [gl.FRAGMENT_SHADER, fragmentCode]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, code);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  gl.useProgram(program);
  const uniform = (name) => gl.getUniformLocation(program, name);
  const places_ = gl.createBuffer(), colours_ = gl.createBuffer(), found_ = gl.createBuffer();
  const bind = (buffer, name, size, kind, norm) => {
    const where = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(where);
    gl.vertexAttribPointer(where, size, kind, norm, 0, 0);
  };
  const fill = (buffer, from, size) => {
    const sorted = new from.constructor(from.length);
    for (let i = 0; i < count; i++) for (let j = 0; j < size; j++) sorted[size * i + j] = from[size * order[i] + j];
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, sorted, gl.STATIC_DRAW);
  };
  bind(places_, "place", 3, gl.FLOAT, false);
  bind(colours_, "colour", 4, gl.UNSIGNED_BYTE, true);
  bind(found_, "found", 1, gl.UNSIGNED_BYTE, false);
  return {
    setPlaces: () => fill(places_, places(view.layout), 3),
    setColours: () => { fill(colours_, colours, 4); fill(found_, big, 1); },
    draw: (ground, shown) => {
      const box = frame(), scale = stretch(), r = rotation();
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(ground[0] / 255, ground[1] / 255, ground[2] / 255, 1);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
      if (flat()) gl.disable(gl.DEPTH_TEST); else gl.enable(gl.DEPTH_TEST);
      gl.uniformMatrix3fv(uniform("turn"), false, [r[0], r[3], r[6], r[1], r[4], r[7], r[2], r[5], r[8]]); // columns
      gl.uniform3fv(uniform("centre"), view.centre);
      gl.uniform2f(uniform("scale"), 2 * scale / view.width, 2 * scale / view.height);
      gl.uniform2f(uniform("middle"), 2 * box.x / view.width - 1, 1 - 2 * box.y / view.height);
      gl.uniform1f(uniform("far"), flat() ? 0 : far);
      gl.uniform1f(uniform("fog"), flat() ? 0 : 0.75);
      gl.uniform3f(uniform("ground"), ground[0] / 255, ground[1] / 255, ground[2] / 255);
      const wide = glowSize();
      if (wide > 0) { // a soft ground where points are dense
        gl.disable(gl.DEPTH_TEST);
        gl.uniform1f(uniform("glow"), dark ? 0.055 : 0.05);
        gl.uniform1f(uniform("size"), wide * view.ratio);
        gl.drawArrays(gl.POINTS, 0, shown);
      }
      gl.uniform1f(uniform("glow"), 0);
      gl.uniform1f(uniform("size"), pointSize() * view.ratio);
      if (!flat()) gl.enable(gl.DEPTH_TEST);
      gl.drawArrays(gl.POINTS, 0, shown);
    },
  };
}

function startPlain() { // squares for many points, discs for few
  const plain = canvas.getContext("2d");
  const draw = (ground, shown) => {
    const box = frame(), scale = stretch(), turn = rotation(), at = places(view.layout), p = [0, 0, 0];
    plain.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
    plain.fillStyle = css(ground);
    plain.fillRect(0, 0, view.width, view.height);
    for (const i of order.subarray(0, shown)) {
      const alpha = colours[4 * i + 3];
      project(at, i, turn, box, scale, p);
      if (!alpha || p[0] < -9 || p[1] < -9 || p[0] > view.width + 9 || p[1] > view.height + 9) continue;
      const size = pointSize() * p[2] * (big[i] ? 1.7 : 1);
      plain.fillStyle = `rgba(${colours[4 * i]},${colours[4 * i + 1]},${colours[4 * i + 2]},${alpha / 255})`;
      if (count > 20000) { plain.fillRect(p[0] - size / 2, p[1] - size / 2, size, size); continue; }
      plain.beginPath();
      plain.arc(p[0], p[1], size / 2, 0, 7);
      plain.fill();
    }
  };
  return { setPlaces: () => {}, setColours: () => {}, draw };
}
const painter = startWebGL() || startPlain();
