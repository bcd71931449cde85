// Which colour each point has, what the legend shows, and which points are found or hidden.
let column = columns[0] || null;
let matches = null; // numbers of the texts that the search found; null: no search
const off = new Set(); // categories that are hidden

function pointColour(i) {
  if (column === null) return plainColour();
  if (column.names) return column.codes[i] === none ? noColour() : categoryColour(column.codes[i]);
  const value = column.values[i];
  return Number.isNaN(value) ? noColour() : rampColour((value - column.low) / (column.high - column.low || 1));
}
function isHidden(i) { return column !== null && column.names && off.has(column.codes[i]); }

function colourPoints() {
  const table = column && column.names ? column.names.map((_, i) => categoryColour(i)) : null, without = noColour();
  const usual = count > 20000 ? 190 : count > 3000 ? 215 : 235;
  for (let i = 0; i < count; i++) {
    const rgb = table ? (column.codes[i] === none ? without : table[column.codes[i]]) : pointColour(i);
    colours[4 * i] = rgb[0]; colours[4 * i + 1] = rgb[1]; colours[4 * i + 2] = rgb[2];
    colours[4 * i + 3] = isHidden(i) ? 0 : matches !== null ? 22 : flat() ? usual : 255;
    big[i] = 0;
  }
  if (matches !== null) for (const i of matches) if (!isHidden(i)) { colours[4 * i + 3] = 255; big[i] = 1; }
  painter.setColours();
  drawSoon();
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text; // never markup: texts may hold anything
  return made;
}
function swatch(rgb) {
  const made = element("span", "swatch");
  made.style.background = css(rgb);
  return made;
}
const shorten = (text, most) => text.length > most ? text.slice(0, most - 1).trimEnd() + "…" : text;
const number = (value) => Number.isNaN(value) ? "–" : Number(value.toPrecision(5)).toLocaleString("en");

function drawLegend() {
  const legend = find("legend");
  legend.replaceChildren();
  if (column === null) return;
  if (!column.names) {
    const bar = element("div", "ramp"), ends = element("div", "ends");
    bar.style.background = `linear-gradient(90deg, ${[0, 0.25, 0.5, 0.75, 1].map((t) => css(rampColour(t))).join(",")})`;
    const [low, high] = [number(column.low), number(column.high)];
    ends.append(element("span", "", column.beyond ? `≤ ${low}` : low), element("span", "", column.beyond ? `≥ ${high}` : high));
    legend.append(bar, ends);
    return;
  }
  const codes = column.names.map((_, i) => i).sort((a, b) => column.sizes[b] - column.sizes[a]).slice(0, 300);
  const rest = count - column.sizes.reduce((a, b) => a + b, 0);
  if (rest) codes.push(none);
  for (const code of codes) {
    const row = element("button", off.has(code) ? "row off" : "row");
    const name = code === none ? column.unnamed : column.names[code];
    row.append(swatch(code === none ? noColour() : categoryColour(code)), element("span", "name", name),
      element("span", "n", (code === none ? rest : column.sizes[code]).toLocaleString("en")));
    row.title = `${name}\nclick: only this one; shift-click: hide or show`;
    row.onclick = (event) => {
      const others = codes.filter((c) => c !== code);
      if (event.shiftKey) off.has(code) ? off.delete(code) : off.add(code);
      else if (!off.has(code) && others.every((c) => off.has(c))) off.clear();
      else { off.clear(); others.forEach((c) => off.add(c)); }
      drawLegend();
      colourPoints();
    };
    legend.append(row);
  }
}

// --- labels stand where their category is densest
function anchors() {
  const layout = view.layout, known = (layout.anchors ||= new Map());
  if (known.has(column)) return known.get(column);
  const at = places(layout), cell = 0.09, cells = column.names.map(() => new Map());
  const key = (i) => [0, 1, 2].reduce((k, j) => k * 64 + Math.floor((at[3 * i + j] + 1.2) / cell), 0);
  for (let i = 0; i < count; i++) {
    if (column.codes[i] === none) continue;
    const own = cells[column.codes[i]], k = key(i);
    own.set(k, (own.get(k) || 0) + 1);
  }
  const peaks = cells.map((own) => [...own].reduce((a, b) => b[1] > a[1] ? b : a, [-1, 0])[0]);
  const sums = column.names.map(() => [0, 0, 0, 0]);
  for (let i = 0; i < count; i++) {
    const code = column.codes[i];
    if (code === none || key(i) !== peaks[code]) continue;
    for (let j = 0; j < 3; j++) sums[code][j] += at[3 * i + j];
    sums[code][3]++;
  }
  const found = column.names.map((name, code) => ({ code, name: shorten(name, 32), size: column.sizes[code], at: sums[code].slice(0, 3).map((v) => v / sums[code][3]) }))
    .filter((a) => a.size > 0).sort((a, b) => b.size - a.size);
  known.set(column, found);
  return found;
}

let naming = true, hovered = -1, chosen = -1;
function drawLabels(ground) {
  pen.setTransform(view.ratio, 0, 0, view.ratio, 0, 0);
  pen.clearRect(0, 0, view.width, view.height);
  const box = frame(), scale = stretch(), turn = rotation(), p = [0, 0, 0], taken = [];
  if (naming && count >= 60 && column !== null && column.names && matches === null) {
    const most = anchors()[0]?.size || 1;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    for (const anchor of anchors()) {
      if (off.has(anchor.code) || taken.length >= 60) continue;
      project(anchor.at, 0, turn, box, scale, p);
      const size = Math.round((11.5 + 4.5 * Math.sqrt(anchor.size / most)) * Math.min(1.25, Math.max(0.9, p[2])));
      pen.font = `600 ${size}px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif`;
      const half = pen.measureText(anchor.name).width / 2 + 5, high = size * 0.75 + 2;
      const [x, y] = p;
      if (x + half < 0 || x - half > view.width || y < 0 || y > view.height) continue;
      if (taken.some((t) => Math.abs(t[0] - x) < t[2] + half && Math.abs(t[1] - y) < t[3] + high)) continue;
      taken.push([x, y, half, high]);
      const rgb = categoryColour(anchor.code);
      pen.lineWidth = 4;
      pen.strokeStyle = `rgba(${ground.join(",")},.88)`;
      pen.strokeText(anchor.name, x, y);
      pen.fillStyle = css(rgb.map((v) => Math.round(dark ? v + (255 - v) * 0.45 : v * 0.62)));
      pen.fillText(anchor.name, x, y);
    }
  }
  if (naming && count < 60) { // few texts: each with its beginning
    pen.font = '12px system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif';
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    pen.lineJoin = "round";
    const away = pointSize() / 2 + 6, shown = [...order].filter((i) => colours[4 * i + 3] > 99);
    for (const i of shown) taken.push([...project(places(view.layout), i, turn, box, scale, p).slice(0, 2), away - 3, away - 3]);
    for (const i of shown) {
      project(places(view.layout), i, turn, box, scale, p);
      const name = shorten(data.texts[i].replace(/\s+/g, " "), 42), long = pen.measureText(name).width;
      const spots = [[p[0] + away, p[1]], [p[0] - away - long, p[1]], [p[0] - long / 2, p[1] + away + 6], [p[0] - long / 2, p[1] - away - 6]];
      const free = spots.find(([x, y]) => x > box.x - box.half && x + long < view.width - 8 &&
        !taken.some((t) => Math.abs(t[0] - x - long / 2) < t[2] + long / 2 && Math.abs(t[1] - y) < t[3] + 7));
      if (!free) continue;
      const [x, y] = free;
      taken.push([x + long / 2, y, long / 2, 7]);
      pen.lineWidth = 4;
      pen.strokeStyle = `rgba(${ground.join(",")},.88)`;
      pen.strokeText(name, x, y);
      pen.fillStyle = dark ? "#c9ced5" : "#3a4149";
      pen.fillText(name, x, y);
    }
  }
  for (const [i, wide] of [[chosen, 3], [hovered, 2]]) {
    if (i < 0) continue;
    project(places(view.layout), i, turn, box, scale, p);
    pen.lineWidth = wide;
    pen.strokeStyle = dark ? "#fff" : "#111";
    pen.beginPath();
    pen.arc(p[0], p[1], pointSize() * p[2] / 2 + 3.5, 0, 7);
    pen.stroke();
    if (i === chosen && near) {
      pen.lineWidth = 1;
      pen.globalAlpha = 0.35;
      for (const j of neighborsOf(i)) {
        const q = project(places(view.layout), j, turn, box, scale, [0, 0, 0]);
        pen.beginPath(); pen.moveTo(p[0], p[1]); pen.lineTo(q[0], q[1]); pen.stroke();
      }
      pen.globalAlpha = 1;
      project(places(view.layout), i, turn, box, scale, p);
    }
  }
}
const neighborsOf = (i) => near ? [...near.rows.subarray(i * near.k, (i + 1) * near.k)].filter((j) => j < count) : [];

// Where frames take long, as without a GPU, only a share of the points is drawn while the map moves, and all of them at rest
const SLOW = 40, GOAL = 33, REST = 250, FEWEST = 5000; // ms, ms, ms, points
let share = 1, drawn = count, last = 0, still = 0, running = false, asked = "";
function drawSoon(what = "points") { // or "labels": a name or a ring has changed, no point
  if (asked !== "points") asked = what;
  if (running) return;
  running = true;
  last = 0;
  requestAnimationFrame(tick);
}
function tick(now) { // until nothing has moved for a while
  const step = last ? now - last : GOAL;
  last = now;
  if (step > SLOW) share = Math.max(share * Math.max(0.5, GOAL / step), Math.min(1, FEWEST / count));
  else if (step < GOAL && share < 1) share = Math.min(1, share * 1.1);
  if (asked) {
    const what = asked;
    asked = "";
    still = now + REST;
    drawNow(what, Math.ceil(share * count));
  } else if (now > still) {
    running = false;
    if (drawn < count) drawNow();
    return;
  }
  requestAnimationFrame(tick);
}
function drawNow(what = "points", shown = count) {
  const ground = dark ? [15, 18, 22] : [250, 250, 248];
  if (what === "points") { painter.draw(ground, shown); drawn = shown; }
  drawLabels(ground);
}
