// Why two texts are alike: the cosine as sums; then the kernels; then everything is drawn.
"use strict";

// A line that adds up.
function addsUp(data, total, what, held) {
  const target = data.texts.length > 1 ? "the cosine" : "1, the cosine of a vector with itself";
  const off = Math.abs(total - data.cosine);
  const note = held.length
    ? `The sum is exact with this held at its value: ${held.join("; ")}. A share would change if another part changed that value.`
    : "Exact, and the model is linear here: nothing is held or approximated.";
  return el("p", { class: "sum" }, `${what} add up to ${show(total)} = ${target}${off > 1e-4 ? ` (off by ${off.toExponential(0)})` : ""}. `, el("span", { class: "soft" }, note));
}

function drawTokenShares(data) {
  const s = data.shares;
  const pair = data.texts.length > 1;
  const list = (t, shares, constant) => [...t.tokens.map((k, i) => [tokenName(k), shares[i]]), ...(constant ? [["(constant)", constant]] : [])];
  const sides = [list(data.texts[0], s.tokens_a, s.constant_a), ...(pair ? [list(data.texts[1], s.tokens_b, s.constant_b)] : [])];
  const largest = Math.max(...sides.flat().map(([, x]) => Math.abs(x)));
  const total = sum(sides[0].map(([, x]) => x));
  return [
    el("h3", {}, pair ? "Which tokens?" : "Which tokens made the vector?"),
    p(pair ? "The vector of A is a sum over its tokens, and so is the product with B: each token of A gives a share of the cosine. The same for B." : "The vector is a sum over its tokens. A token's share is how far it goes in the direction of the whole."),
    el("div", { class: "two" }, sides.map((side, i) => el("div", {}, tag(data, i), bars(side, { largest })))),
    addsUp(data, total, pair ? "The shares of each text" : "The shares", s.held_tokens),
  ];
}

function drawPairs(data) {
  const values = data.shares.pairs.flat();
  const [rows, columns] = [data.shares.pairs.length, data.shares.pairs[0].length];
  const largest = Math.max(1e-12, ...values.map(Math.abs));
  const [first, second] = [data.texts[0], data.texts[data.texts.length - 1]];
  const figure = matrix(first.tokens.map(tokenName), second.tokens.map(tokenName), "share of each pair of tokens");
  paint(() => {
    const toColour = diverging();
    paintCells(figure.canvas, rows, columns, (i, j) => values[i * columns + j] / largest, toColour);
  });
  tellCells(figure.canvas, rows, columns, (i, j) => `‘${tokenName(first.tokens[i])}’ × ‘${tokenName(second.tokens[j])}’: ${signed(values[i * columns + j])}`);
  const order = [...values.keys()].sort((x, y) => values[y] - values[x]).slice(0, 3);
  const names = order.map((k) => `‘${tokenName(first.tokens[Math.floor(k / columns)])}’ × ‘${tokenName(second.tokens[k % columns])}’ ${signed(values[k])}`);
  return [
    el("h3", {}, "Which pairs of tokens?"),
    p("Split both sums, and every pair of a token of A (rows) and a token of B (columns) has its share. The largest: ", b(names.join(", ")), "."),
    el("div", { class: "figure" }, figure.element),
    addsUp(data, data.shares.pairsTotal, data.shares.constant_a || data.shares.constant_b ? "All pairs, and what no token gives," : "All pairs", data.shares.held_tokens),
    el("p", { class: "soft small" }, "This looks like the picture of token cosines above, but these numbers add up to the cosine; those do not."),
  ];
}

function drawParts(data) {
  const s = data.shares.parts;
  const blocks = s.heads.length;
  const heads = blocks ? s.heads[0].length : 0;
  const pair = data.texts.length > 1;
  const layers = s.layers.map((x, i) => [i ? `block ${i}` : "embedding", x]);
  if (s.final_norm) layers.push(["final norm's bias", s.final_norm]);
  if (s.constant) layers.push(["(constant)", s.constant]);
  const made = [
    el("h3", {}, "Which parts of the model?"),
    p("The state of a token is a running sum, the residual stream: the embedding, plus what each head and each MLP of each block wrote to it. So the same number splits over these parts, too.", pair ? " (Each share is the mean of two: through A's vector, with B's as it is, and the other way round.)" : ""),
    bars(layers),
    addsUp(data, sum(layers.map(([, x]) => x)), "The blocks", data.shares.held_parts),
  ];
  if (!blocks) return made;
  const columns = heads + 1;
  const value = (i, j) => (j < heads ? s.heads[i][j] : s.mlps[i]);
  const largest = Math.max(1e-12, ...s.heads.flat().map(Math.abs), ...s.mlps.map(Math.abs));
  const name = (i, j) => (j < heads ? `block ${i + 1}, head ${j + 1}` : `block ${i + 1}, MLP`);
  const figure = matrix(s.heads.map((_, i) => `block ${i + 1}`), [...s.heads[0].map((_, j) => `head ${j + 1}`), "MLP"], "shares of heads and MLPs", 38);
  paint(() => {
    const toColour = diverging();
    paintCells(figure.canvas, blocks, columns, (i, j) => value(i, j) / largest, toColour);
  });
  tellCells(figure.canvas, blocks, columns, (i, j) => `${name(i, j)}: ${signed(value(i, j))}`);
  const all = s.heads.flatMap((row, i) => [...row.map((_, j) => [name(i, j), value(i, j)]), [name(i, heads), value(i, heads)]]);
  const top = all.sort((x, y) => Math.abs(y[1]) - Math.abs(x[1])).slice(0, 8);
  const rest = sum(s.attention_bias) + sum(s.norms) + s.final_norm + s.constant;
  made.push(
    el("div", { class: "figure" }, figure.element),
    p("The largest of them:"),
    bars(top),
    el("p", { class: "soft small" }, `With the table of tokens (${signed(s.tokens)}), positions (${signed(s.positions)}) and biases (${signed(rest)}) these add up to the same number. A share counts what a part itself wrote; that later parts read it is counted with those.`),
  );
  return made;
}

function drawDimensions(data) {
  const list = data.shares.dimensions;
  const order = [...list.keys()].sort((x, y) => Math.abs(list[y]) - Math.abs(list[x]));
  const shown = order.slice(0, 20).map((i) => [`dimension ${i}`, list[i]]);
  const rest = sum(order.slice(20).map((i) => list[i]));
  const rogue = Math.abs(list[order[0]]) > 0.25 * Math.abs(data.cosine) && order.length > 20;
  return [
    el("h3", {}, "Which dimensions?"),
    p("The product of two vectors is a sum over their dimensions. The twenty that matter most:"),
    bars(shown),
    order.length > 20 ? p(`The other ${order.length - 20} give ${signed(rest)} together.`) : null,
    p(rogue ? "One dimension carries much of it: in some models a few dimensions are large for every text, and the cosine mostly says that these are there. Subtracting a mean vector, or whitening, repairs that." : "No dimension carries much alone: the meaning is spread over all of them."),
    addsUp(data, sum(list), "All dimensions", []),
  ];
}

function drawShares(data) {
  const pair = data.texts.length > 1;
  section(
    pair ? "Why they are alike" : "What made this vector",
    "shares",
    p(pair ? "The cosine is one number. It can be taken apart without any approximation, in several ways; each is the same number, cut differently." : "How much of the vector comes from each token and each part of the model? Here the vector is compared with itself, so the shares add up to 1."),
    drawTokenShares(data),
    pair ? drawPairs(data) : null,
    drawParts(data),
    drawDimensions(data),
  );
}

// --- the kernels

let chooseOp = () => {};

function drawKernels(data) {
  const detail = el("div", { class: "figure" });
  const rows = [];
  const choose = (i) => {
    const d = data.dispatches[i];
    const op = data.ops.find((o) => o.name === d.op);
    rows.forEach((row, k) => row.classList.toggle("chosen", k === i));
    detail.replaceChildren(
      el("h3", {}, `${d.op}: ${d.part}`),
      p(code(op.formula)),
      p(code(op.signature), ` here ${d.shape}`, d.weight ? [", with ", code(d.weight)] : ""),
      el("h3", {}, "In numpy, which defines what is right"),
      el("pre", {}, op.numpy),
      el("h3", {}, "In WGSL, for the GPU"),
      p(`${d.grid.join(" × ")} workgroups run this program; each of their threads knows its place from its ids.`),
      el("pre", {}, data.shaders[d.shader]),
    );
  };
  chooseOp = (name) => choose(data.dispatches.findIndex((d) => d.op === name));
  const total = sum(data.dispatches.map((d) => d.seconds || 0));
  const time = (d) => (d.seconds === null ? "" : d.seconds < 1e-3 ? `${(1e6 * d.seconds).toFixed(1)} µs` : `${(1e3 * d.seconds).toFixed(2)} ms`);
  data.dispatches.forEach((d, i) => rows.push(el("tr", { onclick: () => choose(i) }, el("td", { class: "right" }, String(i + 1)), el("td", {}, d.part), el("td", {}, code(d.op)), el("td", {}, code(d.shape)), el("td", {}, d.grid.join(" × ")), data.timed ? el("td", { class: "right" }, time(d)) : null)));
  const head = el("tr", {}, el("th", { class: "right" }, "#"), el("th", {}, "part"), el("th", {}, "op"), el("th", {}, "sizes"), el("th", {}, "workgroups"), data.timed ? el("th", { class: "right" }, "time") : null);
  const numpy = data.model.device === "numpy";
  section(
    "The kernels that compute it",
    "kernels",
    p(`All of the above is ${many(data.dispatches.length, "step")}, one after the other, of ${many(data.ops.length, "operation")}. Each is a small program that many threads of a GPU run at the same time; a workgroup is a team of threads that share a fast memory.`),
    p(numpy ? "These texts were computed in numpy, so nothing was dispatched: sizes and programs are those that a GPU would get." : `Computed on ${data.model.device}${data.timed ? `, in ${(1e3 * total).toFixed(2)} ms altogether (median of five runs, each step timed alone)` : ", which has no clock for single steps"}.`),
    p("Choose a step to read its definition and its program."),
    el("div", { class: "scroll", css: { maxHeight: "24rem", overflowY: "auto" } }, el("table", {}, el("thead", {}, head), el("tbody", {}, rows))),
    detail,
  );
  choose(0);
}

function drawContents() {
  document.querySelectorAll("h2").forEach((h) => document.getElementById("contents").append(el("li", {}, el("a", { href: `#${h.id}` }, h.lastChild.textContent))));
}

unpack().then((data) => {
  document.documentElement.lang = "en";
  for (const draw of [drawStart, drawTokens, drawVectors, drawAttention, drawBlocks, drawPooling, drawVector, drawShares, drawKernels]) draw(data);
  drawContents();
  document.body.dataset.ready = "yes";
});
