// Figures: strips, matrices, bars and a curve.
"use strict";

// Paint values, one pixel a cell; the style of the canvas makes the pixels large.
function paintCells(canvas, rows, columns, value, toColour) {
  canvas.width = columns;
  canvas.height = rows;
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    const [red, green, blue] = toColour(value(Math.floor(i / columns), i % columns));
    image.data.set([red, green, blue, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
}

// A square matrix in at most `most` cells a side, each the largest of those that it stands for.
function shrink(values, n, most) {
  const size = Math.min(n, most);
  const found = new Float64Array(size * size);
  for (let k = 0; k < n * n; k++) {
    const at = Math.floor((Math.floor(k / n) * size) / n) * size + Math.floor(((k % n) * size) / n);
    found[at] = Math.max(found[at], values[k]);
  }
  return { size, found };
}

// Rows of numbers as coloured strips, a row for each name. Numbers are divided by `largest` for the colour.
function strips(names, columns, value, largest, describe, label, height = names.length > 60 ? 11 : 15) {
  const canvas = el("canvas", { role: "img", "aria-label": label, css: { height: `${names.length * height}px` } });
  paint(() => {
    const toColour = diverging();
    paintCells(canvas, names.length, columns, value, (x) => toColour(Math.sign(x) * Math.sqrt(Math.abs(x) / largest)));
  });
  tellCells(canvas, names.length, columns, describe);
  const row = (name) => el("div", { css: { height: `${height}px`, lineHeight: `${height}px` }, title: name }, name);
  return scrolled(el("div", { class: "strip" }, el("div", { class: "names" }, names.map(row)), canvas), names.length > 24);
}

// A tall figure in a box of its own.
const scrolled = (figure, tall) => (tall ? el("div", { class: "tall" }, figure) : figure);


// A matrix with names beside its rows and above its columns.
function matrix(rowNames, columnNames, label, wide = 30) {
  const room = Math.min(document.getElementById("page").clientWidth, 900) - 120;
  const size = Math.max(3, Math.min(wide, Math.floor(room / columnNames.length)));
  const [rows, columns] = [rowNames.length, columnNames.length];
  const canvas = el("canvas", { role: "img", "aria-label": label, css: { width: `${columns * size}px`, height: `${rows * size}px` } });
  const named = size >= 9;
  const short = (name) => (named ? name : "");
  const made = el(
    "div",
    { class: "matrix", css: { gridTemplateColumns: "max-content max-content" } },
    el("div"),
    el("div", { class: "columns" }, named ? columnNames.map((n) => el("div", { css: { width: `${size}px` } }, n)) : ""),
    el("div", { class: "rows" }, rowNames.map((n) => el("div", { css: { height: `${size}px` } }, short(n)))),
    canvas,
  );
  return { element: el("div", { class: "scroll" }, made), canvas, rows, columns };
}

// Bars from a list of [name, value]; all bars share one scale.
function bars(list, options = {}) {
  const { digits = 4, colour: one, largest = Math.max(1e-12, ...list.map(([, x]) => Math.abs(x))), format = (x) => signed(x, digits) } = options;
  const least = Math.min(0, ...list.map(([, x]) => x)) / largest;
  const most = Math.max(0, ...list.map(([, x]) => x)) / largest;
  const span = most - least || 1;
  const cells = list.map(([name, x]) => {
    const from = (Math.min(0, x / largest) - least) / span;
    const bar = el("div", { class: "bar", css: { left: `${100 * from}%`, width: `${(100 * Math.abs(x / largest)) / span}%` } });
    bar.style.background = one || (x < 0 ? "var(--minus)" : "var(--plus)");
    const zero = el("div", { class: "zero", css: { left: `${(-100 * least) / span}%` } });
    return [el("div", { class: "name", title: name }, name), el("div", { class: "track" }, bar, zero), el("div", { class: "value" }, format(x))];
  });
  return scrolled(el("div", { class: "bars" }, cells), list.length > 24);
}

// Curves over the blocks: lists of [name, colour variable, values], from `low` to 1.
function curves(lines, low) {
  const [width, height, left, bottom, right, top] = [Math.min(640, document.getElementById("page").clientWidth - 26), 230, 44, 34, 96, 12];
  const count = lines[0][2].length;
  const x = (i) => left + ((width - left - right) * i) / Math.max(1, count - 1);
  const y = (v) => top + (height - top - bottom) * (1 - (v - low) / (1 - low));
  const made = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": lines.map(([n]) => n).join(", ") });
  for (const v of [low, (low + 1) / 2, 1]) {
    made.append(svg("line", { class: "axis", x1: left, x2: width - right, y1: y(v), y2: y(v) }));
    made.append(svg("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, show(v, 2)));
  }
  for (let i = 0; i < count; i += Math.ceil(count / 14)) {
    made.append(svg("text", { x: x(i), y: height - bottom + 16, "text-anchor": "middle" }, String(i)));
  }
  made.append(svg("text", { x: left, y: height - 3 }, "blocks that have run (0: the embedding)"));
  for (const [name, kind, values] of lines) {
    const points = Array.from(values, (v, i) => `${x(i).toFixed(1)},${y(Math.max(low, v)).toFixed(1)}`).join(" ");
    made.append(svg("polyline", { points, fill: "none", stroke: `var(--${kind})`, "stroke-width": 2 }));
    for (let i = 0; i < count; i++) {
      const dot = svg("circle", { cx: x(i), cy: y(Math.max(low, values[i])), r: 4, fill: `var(--${kind})` });
      dot.append(svg("title", {}, `${name} after block ${i}: ${show(values[i])}`));
      made.append(dot);
    }
    const last = values[count - 1];
    made.append(svg("text", { x: width - right + 10, y: y(Math.max(low, last)) + 4 }, `${name} ${show(last, 2)}`));
  }
  return made;
}

// Buttons of which one is pressed; `choose(i)` is called for it, and for the first one at once.
function choices(names, choose, first = 0) {
  const press = (i) => {
    made.forEach((button, k) => button.setAttribute("aria-pressed", String(k === i)));
    choose(i);
  };
  const made = names.map((name, i) => el("button", { class: "plain", type: "button", onclick: () => press(i) }, name));
  press(first);
  return made;
}
