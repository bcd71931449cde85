// Pointer, keyboard, search, panel.
function resize() {
  view.width = innerWidth; view.height = innerHeight; view.ratio = Math.min(2, devicePixelRatio || 1);
  for (const c of [canvas, over]) { c.width = view.width * view.ratio; c.height = view.height * view.ratio; }
  drawSoon();
}
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let flight = 0;
function flyTo(target) { // a smooth way to another centre, zoom and angle
  const from = { centre: [...view.centre], zoom: view.zoom, yaw: view.yaw, pitch: view.pitch }, to = { ...from, ...target };
  const began = performance.now(), mine = ++flight, time = calm.matches ? 0 : 450;
  const step = (now) => {
    if (mine !== flight) return;
    const t = time ? Math.min(1, Math.max(0, (now - began) / time)) : 1, s = t * t * (3 - 2 * t), mix = (a, b) => a + (b - a) * s;
    view.centre = from.centre.map((v, j) => mix(v, to.centre[j]));
    view.zoom = from.zoom * (to.zoom / from.zoom) ** s;
    view.yaw = mix(from.yaw, to.yaw); view.pitch = mix(from.pitch, to.pitch);
    drawSoon();
    if (t < 1) requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}
const showAll = () => flyTo({ centre: [0, 0, 0], zoom: 1, yaw: flat() ? 0 : 0.6, pitch: flat() ? 0 : 0.4 });
const goTo = (i) => flyTo({ centre: [...places(view.layout).subarray(3 * i, 3 * i + 3)], zoom: Math.max(view.zoom, count < 60 ? 1.5 : 4) });

function pick(x, y) {
  const at = places(view.layout), turn = rotation(), box = frame(), scale = stretch(), p = [0, 0, 0];
  let best = -1, least = Math.max(9, pointSize() / 2 + 4) ** 2, front = 0;
  for (let i = 0; i < count; i++) {
    if (colours[4 * i + 3] === 0 || (matches !== null && !big[i])) continue;
    project(at, i, turn, box, scale, p);
    const apart = (p[0] - x) ** 2 + (p[1] - y) ** 2;
    if (apart < least - 1e-3 || (apart < least + 4 && p[2] > front + 0.02)) { best = i; least = Math.min(least, apart); front = p[2]; }
  }
  return best;
}
function move(dx, dy) { // the ground follows the pointer
  const r = rotation(), s = stretch(), x = -dx / s, y = dy / s;
  view.centre = view.centre.map((v, j) => v + r[j] * x + r[3 + j] * y);
}
function zoomAt(factor, x, y) {
  const box = frame(), old = view.zoom;
  view.zoom = Math.min(20000, Math.max(0.3, view.zoom * factor));
  const keep = 1 - old / view.zoom; // the point under the pointer stays there
  const back = view.zoom / old;
  view.zoom = old; move(-(x - box.x) * keep, -(y - box.y) * keep); view.zoom = old * back;
  drawSoon();
}

const pointers = new Map();
let dragged = 0;
canvas.addEventListener("pointerdown", (e) => {
  canvas.setPointerCapture(e.pointerId);
  pointers.set(e.pointerId, [e.clientX, e.clientY]);
  dragged = 0; flight++;
});
canvas.addEventListener("pointermove", (e) => {
  const last = pointers.get(e.pointerId);
  if (!last) { hover(e.clientX, e.clientY); return; }
  const dx = e.clientX - last[0], dy = e.clientY - last[1];
  dragged += Math.abs(dx) + Math.abs(dy);
  if (dragged > 3) { hideTip(); canvas.classList.add("dragging"); }
  if (pointers.size === 2) {
    const other = [...pointers].find(([id]) => id !== e.pointerId)[1];
    const before = Math.hypot(last[0] - other[0], last[1] - other[1]), now = Math.hypot(e.clientX - other[0], e.clientY - other[1]);
    move(dx / 2, dy / 2);
    if (before > 0) zoomAt(now / before, (e.clientX + other[0]) / 2, (e.clientY + other[1]) / 2);
  } else if (flat() || e.shiftKey || e.buttons === 2 || e.buttons === 4) move(dx, dy);
  else { view.yaw -= dx * 0.006; view.pitch = Math.min(1.57, Math.max(-1.57, view.pitch - dy * 0.006)); }
  pointers.set(e.pointerId, [e.clientX, e.clientY]);
  drawSoon();
});
for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (e) => {
  pointers.delete(e.pointerId);
  canvas.classList.remove("dragging");
  if (kind === "pointerup" && dragged <= 3) choose(pick(e.clientX, e.clientY));
});
canvas.addEventListener("pointerleave", () => { if (!pointers.size) hideTip(); });
canvas.addEventListener("contextmenu", (e) => e.preventDefault());
canvas.addEventListener("wheel", (e) => {
  e.preventDefault(); flight++;
  zoomAt(Math.exp(-Math.max(-200, Math.min(200, e.deltaY * (e.deltaMode ? 30 : 1))) * (e.ctrlKey ? 0.01 : 0.0018)), e.clientX, e.clientY);
}, { passive: false });
canvas.addEventListener("dblclick", (e) => zoomAt(2, e.clientX, e.clientY));

function facts(i) {
  const line = element("div", "facts");
  for (const c of columns) {
    const item = element("span");
    if (c.names) {
      if (c.codes[i] === none) continue;
      if (c === column) item.append(swatch(categoryColour(c.codes[i])));
      item.append(`${c.name}: ${shorten(c.names[c.codes[i]], 60)}`);
    } else item.append(`${c.name}: ${number(c.values[i])}`);
    line.append(item);
  }
  return line;
}
function hover(x, y) {
  const i = pick(x, y), tip = find("tip");
  canvas.classList.toggle("pointing", i >= 0);
  if (i < 0) { hideTip(); return; }
  if (i !== hovered) tip.replaceChildren(element("div", "text", data.texts[i] || "(empty)"), facts(i));
  hovered = i;
  tip.hidden = false;
  const left = x + 16 + tip.offsetWidth > view.width ? x - tip.offsetWidth - 12 : x + 16;
  const top = y + 16 + tip.offsetHeight > view.height ? y - tip.offsetHeight - 12 : y + 16;
  tip.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, top)}px)`;
  drawSoon("labels");
}
function hideTip() {
  if (hovered < 0) return;
  hovered = -1;
  find("tip").hidden = true;
  drawSoon("labels");
}
function textRow(i, then) {
  const row = element("button", "row");
  row.append(swatch(pointColour(i)), element("span", "name", shorten(data.texts[i] || "(empty)", 160)));
  row.onclick = () => { choose(i); goTo(i); then?.(); };
  return row;
}
function choose(i) {
  chosen = i;
  const details = find("details");
  details.hidden = i < 0;
  if (i >= 0) {
    const close = element("button", "close", "×");
    close.setAttribute("aria-label", "Close");
    close.onclick = () => choose(-1);
    details.replaceChildren(close, element("div", "text", data.texts[i] || "(empty)"), facts(i));
    const others = neighborsOf(i);
    if (others.length) details.append(element("h2", "", "Nearest"), ...others.map((j) => textRow(j)));
    details.scrollTop = 0;
  }
  drawSoon("labels");
}

let typing = 0;
const lower = [];
function search(words) {
  const wanted = words.trim().toLowerCase();
  if (!wanted) matches = null;
  else {
    if (!lower.length) for (const text of data.texts) lower.push(text.toLowerCase());
    matches = [];
    for (let i = 0; i < count; i++) if (lower[i].includes(wanted)) matches.push(i);
  }
  find("found").textContent = matches === null ? "" : matches.length.toLocaleString("en");
  find("results").replaceChildren(...(matches || []).slice(0, 100).map((i) => textRow(i)));
  colourPoints();
}
const box = find("search");
box.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => search(box.value), count > 20000 ? 150 : 30); });
box.addEventListener("keydown", (e) => {
  if (e.key === "Enter") { clearTimeout(typing); search(box.value); if (matches?.length) { choose(matches[0]); goTo(matches[0]); } }
  if (e.key === "Escape") { box.value = ""; search(""); box.blur(); }
});
addEventListener("keydown", (e) => {
  if (e.target.closest?.("input, select") || e.ctrlKey || e.metaKey || e.altKey) return;
  const pan = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }[e.key];
  if (e.key === "/") { e.preventDefault(); box.focus(); }
  else if (e.key === "Escape") choose(-1);
  else if (e.key === "r") showAll();
  else if (e.key === "d") changeTheme();
  else if (e.key === "l") find("naming").click();
  else if (e.key === "+" || e.key === "=") zoomAt(1.3, frame().x, frame().y);
  else if (e.key === "-") zoomAt(1 / 1.3, frame().x, frame().y);
  else if (pan) { move(...pan); drawSoon(); }
});

function setTheme() {
  document.documentElement.classList.toggle("dark", dark);
  drawLegend();
  colourPoints();
  if (chosen >= 0) choose(chosen);
}
function changeTheme() { dark = !dark; setTheme(); }
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (e) => { dark = e.matches; setTheme(); });
find("theme").onclick = changeTheme;
find("reset").onclick = showAll;
find("naming").onclick = () => { naming = !naming; drawSoon("labels"); };

function setLayout(i) {
  view.layout = layouts[i];
  Object.assign(view, { centre: [0, 0, 0], zoom: 1, yaw: flat() ? 0 : 0.6, pitch: flat() ? 0 : 0.4 });
  find("hint").textContent = flat() ? "drag to move · scroll to zoom · click a point" : "drag to turn · shift-drag to move · scroll to zoom";
  flight++;
  painter.setPlaces();
  colourPoints();
}
find("title").textContent = data.title;
find("count").textContent = `${count.toLocaleString("en")} ${count === 1 ? "text" : "texts"}`;
for (const [i, { name }] of layouts.entries()) find("layout").append(new Option(name, i));
for (const [i, { name }] of columns.entries()) find("colour").append(new Option(name, i));
find("colour").append(new Option("one colour", -1));
find("layout").onchange = (e) => setLayout(Number(e.target.value));
find("colour").onchange = (e) => { column = columns[e.target.value] || null; off.clear(); drawLegend(); colourPoints(); if (chosen >= 0) choose(chosen); };
addEventListener("resize", resize);
resize();
setTheme();
setLayout(0);
drawNow();
document.documentElement.dataset.ready = "yes";
