// From the text to its vector: the sections of the page, in order.
"use strict";

let sections = 0;

function section(title, id, ...children) {
  sections += 1;
  const heading = el("h2", { id }, el("span", { class: "number" }, String(sections)), title);
  document.getElementById("page").append(el("section", { "aria-labelledby": id }, heading, ...children));
}

// Which ops computed a section, with their formulas; a link leads to their kernels.
function computedBy(data, names) {
  const parts = data.ops
    .filter((op) => names.includes(op.name))
    .map((op) => [el("a", { href: "#kernels", onclick: () => chooseOp(op.name) }, code(op.name)), " = ", code(op.formula), "; "]);
  return parts.length ? el("p", { class: "kernel" }, "Computed by ", parts, "see the kernels below.") : null;
}

const tag = (data, i) => (data.texts.length > 1 ? el("span", { class: `tag ${letter(i).toLowerCase()}` }, letter(i)) : null);
const eachText = (data, draw) => data.texts.map((text, i) => el("div", { class: "figure" }, tag(data, i), draw(text, i)));

function drawStart(data) {
  const pair = data.texts.length > 1;
  const top = document.getElementById("page");
  top.append(
    el("h1", {}, pair ? "How two sentences become vectors, and why they are alike" : "How a sentence becomes a vector"),
    el("div", { class: "texts" }, data.texts.map((t, i) => el("div", { class: `sentence ${pair ? letter(i).toLowerCase() : ""}` }, tag(data, i), t.text || "(an empty text)"))),
  );
  if (pair) {
    top.append(
      el("div", { class: "score" }, el("div", { class: "big" }, show(data.cosine)), p("is the cosine of the angle between their vectors: 1 means the same direction, 0 a right angle, −1 opposite. What counts as close depends on the model: compare with pairs that you know.")),
    );
  }
  const m = data.model;
  top.append(
    p(`The model is ${m.model}: a ${m.architecture} model with ${many(m.layers, "block")}, of which ${data.texts[0].attention.shape[0]} are run, ${many(m.heads, "attention head")} in each, and ${m.width} numbers for each token. Every figure on this page is computed from its weights, in float64.`),
    p("Each section starts from what the one before it made. Point at a figure, or tap it, to read its numbers."),
    el("nav", {}, el("ol", { id: "contents" })),
  );
}

function drawTokens(data) {
  const chips = (t) => el("div", { class: "chips" }, t.tokens.map((k) => el("div", { class: `chip ${k.special ? "special" : ""}`, title: k.special ? "a special token" : `characters ${k.start} to ${k.stop}` }, b(tokenName(k)), el("span", {}, String(k.id)))));
  const merged = (t) => t.words.filter((w) => w.count > 1 || w.steps.length > 1);
  const why = {
    merges: "starts as single letters. Then the pair of neighbours that was most frequent in the tokenizer's training is joined, again and again, until no known pair is left:",
    pieces: "is not in the vocabulary. From its beginning, the longest piece that is known is taken, then the longest known piece of the rest (## means: goes on):",
    scores: "can be cut in many ways. The cut with the most probable pieces wins (in brackets: the logarithm of a piece's probability):",
    whole: "is cut by a rule that is not shown here:",
  };
  const word = (w, open) => {
    const name = w.steps[w.kind === "merges" ? w.steps.length - 1 : 0].join("");
    const steps = w.steps.map((step, i) => {
      const before = i ? new Set(w.steps[i - 1]) : null;
      return el("div", { class: "step mono" }, el("i", {}, String(i)), step.map((piece) => el("span", before && !before.has(piece) ? { class: "new" } : {}, piece)));
    });
    return el("details", open ? { open: "" } : {}, el("summary", {}, b(name), ` → ${many(w.count, "token")}`), p(b(name), " ", why[w.kind]), el("div", { class: "steps" }, steps));
  };
  const kinds = new Set(data.texts.flatMap((t) => t.words.map((w) => w.kind)));
  const spaces = data.texts.some((t) => t.tokens.some((k) => k.name.startsWith("␣")));
  const special = data.texts.some((t) => t.tokens.some((k) => k.special));
  const example = data.texts.flatMap(merged).sort((x, y) => y.count - x.count || y.steps.length - x.steps.length)[0];
  section(
    "Text → tokens",
    "tokens",
    p(`The model reads neither letters nor words. It knows ${data.model.vocabulary.toLocaleString("en")} pieces of text, called tokens, each with a number, its id. The text is cut into such pieces.`, spaces ? " ␣ marks a space before a word." : "", special ? " A dashed frame marks a special token, which the model adds or gives a meaning of its own." : ""),
    eachText(data, chips),
    example ? [el("h3", {}, "How a word was cut"), word(example, true)] : null,
    el("details", {}, el("summary", {}, "Every word that took a step"), data.texts.map((t, i) => [tag(data, i), merged(t).filter((w) => w !== example).map((w) => word(w, false))])),
    kinds.has("merges") ? p("Frequent words end as one token; rare ones stay in pieces, which the model has to put together.") : null,
  );
}

function drawVectors(data) {
  const strip = (packed, t, what) => {
    const [rows, columns] = packed.shape;
    const { values, largest } = matrixOf(packed);
    return strips(t.tokens.map(tokenName), columns, (i, j) => values[i * columns + j], largest, (i, j) => `${what} of ‘${tokenName(t.tokens[i])}’, dimension ${j}: ${show(values[i * columns + j], 3)}`, `${what}s, a row for each token`);
  };
  const t = data.texts[0];
  const [x, y] = t.firstSum.map((list) => list[0]);
  const learned = data.positions !== "rotary";
  const cut = t.columns > t.tokenVectors.shape[1] ? ` (the first ${t.tokenVectors.shape[1]} of ${t.columns} columns)` : "";
  const positions = {
    learned: "A second table has a row for each position in the text, first, second, …; it is added, so that the model can tell “dog bites man” from “man bites dog”.",
    distance: "A second table has a row for each position in the text; it is added. In each attention, a number for the distance of two tokens is added to their score, too.",
    rotary: "This model adds no row for positions: in each attention, queries and keys are turned by angles that grow with the position (rotary positions), so that a score depends on the distance of two tokens. What is added here is the same for every token, or nothing.",
  }[data.positions];
  section(
    "Tokens → vectors",
    "vectors",
    p(`Each id is the number of a row in a table that was learned in training. The row has ${t.columns} numbers: the token's vector, whatever stands around it. Here each token is a strip${cut}: `, el("span", { css: { color: "var(--plus)" } }, "orange is positive"), ", ", el("span", { css: { color: "var(--minus)" } }, "blue negative"), "."),
    eachText(data, (text) => strip(text.tokenVectors, text, "token vector")),
    el("h3", {}, "Positions"),
    p(positions),
    learned ? eachText(data, (text) => strip(text.positionVectors, text, "position vector")) : null,
    p("The sum goes into the first block. For ", b(tokenName(t.tokens[0])), ", dimension 0: ", code(`${show(x, 3)} + ${show(y, 3)} = ${show(x + y, 3)}`), ". No single dimension has a meaning of its own that we could name; directions do."),
    computedBy(data, ["embed", "embed_int8"]),
  );
}

function drawAttention(data) {
  const [blocks, heads] = data.texts[0].attention.shape;
  if (!blocks) return section("Attention", "attention", p("No block is run: the embedding itself is pooled, so tokens do not read each other."));
  const state = { text: 0, block: 0, head: 0 };
  const grid = el("div", { class: "scroll" });
  const large = el("div", { class: "figure" });
  const sentence = el("p", { class: "sum" });
  const map = (text, block, head) => matrixOf(data.texts[text].attention, block * heads + head);
  const drawLarge = () => {
    const t = data.texts[state.text];
    const names = t.tokens.map(tokenName);
    const n = names.length;
    const { values, largest } = map(state.text, state.block, state.head);
    const figure = matrix(names, names, `attention of head ${state.head + 1} in block ${state.block + 1}`);
    paint(() => paintCells(figure.canvas, n, n, (i, j) => values[i * n + j] / largest, rising()));
    const row = (i) => {
      const order = [...names.keys()].sort((x, y) => values[i * n + y] - values[i * n + x]).slice(0, 5).filter((j) => values[i * n + j] > 0.005);
      sentence.replaceChildren(b(`‘${names[i]}’`), ` (token ${i + 1}) takes `, order.map((j) => `${percent(values[i * n + j])} from ‘${names[j]}’`).join(", "), order.length < n ? ", the rest from others." : ".");
    };
    tellCells(figure.canvas, n, n, (i, j) => `‘${names[i]}’ takes ${percent(values[i * n + j])} from ‘${names[j]}’`, row);
    row(n - 1);
    large.replaceChildren(el("h3", {}, `Block ${state.block + 1}, head ${state.head + 1}`), p(`Each row is a token that reads, each column one that is read. A row adds up to 100 %; the darkest cell here is ${percent(largest)}.`), figure.element, sentence);
    grid.querySelectorAll("button").forEach((button, k) => button.setAttribute("aria-pressed", String(k === state.block * heads + state.head)));
  };
  const drawGrid = () => {
    const n = data.texts[state.text].tokens.length;
    const size = Math.max(22, Math.min(64, Math.floor((Math.min(document.getElementById("page").clientWidth, 900) - 80) / heads) - 8));
    const cells = [el("div")];
    for (let h = 0; h < heads; h++) cells.push(el("div", { class: "label top" }, heads > 8 ? String(h + 1) : `head ${h + 1}`));
    for (let block = 0; block < blocks; block++) {
      cells.push(el("div", { class: "label" }, `block ${block + 1}`));
      for (let h = 0; h < heads; h++) {
        const canvas = el("canvas", { css: { width: `${size}px`, height: `${size}px`, border: "1px solid var(--line)" } });
        const { values, largest } = map(state.text, block, h);
        const small = shrink(values, n, 40);
        paint(() => paintCells(canvas, small.size, small.size, (i, j) => small.found[i * small.size + j] / largest, rising()));
        cells.push(el("button", { type: "button", title: `block ${block + 1}, head ${h + 1}`, onclick: () => { Object.assign(state, { block, head: h }); drawLarge(); } }, canvas));
      }
    }
    grid.replaceChildren(el("div", { class: "heads", css: { gridTemplateColumns: `max-content repeat(${heads}, max-content)` } }, cells));
    drawLarge();
  };
  const causal = data.texts.every((t, i) => {
    const [n, { values }] = [t.tokens.length, map(i, 0, 0)];
    return [...values.keys()].every((k) => k % n <= Math.floor(k / n) || values[k] === 0);
  });
  const texts = data.texts.length > 1 ? el("div", { class: "controls" }, choices(["text A", "text B"], (i) => { state.text = i; drawGrid(); })) : null;
  const steps = data.texts[0].attention.steps;
  const coarse = steps < 255 ? ` To keep this page small, they are rounded to ${steps + 1} shades.` : "";
  section(
    "Blocks: tokens read each other",
    "attention",
    p("So far, “bank” has the same vector beside “river” as beside “money”. In each block, tokens take something from each other: a token asks (its query), every token it can see answers (its key), and the better they fit, the more is taken of what that token offers (its value). Each head of each block asks in its own way. Then an MLP works on every token alone."),
    p(causal ? "This model reads from left to right: a token sees only itself and the tokens before it, so the upper right stays empty." : "In this model a token sees the tokens before it and after it.", ` Below are the maps of all ${many(blocks * heads, "head")}.${coarse} Choose one to enlarge it.`),
    texts,
    grid,
    large,
    p(el("span", { class: "soft small" }, "Many heads look at the first token or at a full stop when they find nothing to take. That is not a fault: a row has to add up to 100 %.")),
    computedBy(data, ["attention", "attention_bias"]),
  );
  if (data.texts.length < 2) drawGrid();
}

function drawBlocks(data) {
  const pair = data.texts.length > 1;
  const packed = data.tokenCosines;
  const [count, rows, columns] = packed.shape;
  const [first, second] = [data.texts[0], data.texts[pair ? 1 : 0]];
  const mean = Array.from({ length: count }, (_, k) => {
    const { values } = matrixOf(packed, k);
    const others = pair ? [...values] : [...values].filter((_, i) => Math.floor(i / columns) !== i % columns);
    return others.length ? sum(others) / others.length : 1;
  });
  const lines = [...(pair ? [["A and B", "reads", data.layerCosines]] : []), [pair ? "tokens" : "its tokens", "a", mean]];
  const low = Math.min(0, ...lines.flatMap(([, , values]) => [...values]));
  const figure = matrix(first.tokens.map(tokenName), second.tokens.map(tokenName), "cosine of each pair of tokens");
  const label = el("span", {}, "");
  const draw = (k) => {
    const { values } = matrixOf(packed, k);
    paint(() => paintCells(figure.canvas, rows, columns, (i, j) => values[i * columns + j], diverging()));
    tellCells(figure.canvas, rows, columns, (i, j) => `‘${tokenName(first.tokens[i])}’ and ‘${tokenName(second.tokens[j])}’: ${show(values[i * columns + j], 2)}`);
    label.textContent = k ? `after block ${k}${k === count - 1 && data.finalNorm ? " and the final norm" : ""}` : "the embedding, before any block";
  };
  const slider = el("input", { type: "range", min: 0, max: count - 1, value: count - 1, "aria-label": "block", oninput: () => draw(Number(slider.value)) });
  draw(count - 1);
  const crowd = Math.max(...mean.slice(0, -1), 0);
  const crowded = "the vectors crowd into a narrow cone (anisotropy), because a few large dimensions are nearly the same for every token and hide the rest. A high cosine then says less than it seems to.";
  const remark =
    mean[count - 1] > 0.8
      ? `At the end the tokens point nearly the same way, whatever they are: ${crowded}`
      : crowd > 0.8
        ? `At first the tokens point nearly the same way, with a mean cosine of ${show(crowd, 2)}: ${crowded} Here a later step removes that: ${data.finalNorm ? "the final norm subtracts each token's mean and rescales every dimension" : "later blocks and norms spread them out"}.`
        : "A token's vector changes from block to block: what it shares with others shows what the model has read by then.";
  section(
    "Block by block",
    "blocks",
    p(pair ? "If the model stopped after a block and pooled there, how alike would the two texts be? And how alike are single tokens of A and B on average?" : "How alike are the tokens of this text, on average, after each block?"),
    el("div", { class: "figure" }, curves(lines, low)),
    p(remark),
    el("h3", {}, pair ? "Each token of A with each token of B" : "Each token with each other"),
    el("div", { class: "controls" }, slider, label),
    el("div", { class: "figure" }, figure.element),
    computedBy(data, ["linear_add", "linear_add_int8", "layer_norm", "rms_norm"]),
  );
}

// How much each token counts; in words where all count the same.
function poolingBars(t) {
  const weights = t.pooling[0].weights;
  const used = weights.filter((w) => w !== 0);
  if (used.every((w) => Math.abs(w - used[0]) < 1e-9)) {
    const left = weights.length - used.length;
    const out = left ? ` ${many(left, "token")} of the prompt or beside it count nothing.` : "";
    return p(used.length === 1 ? "Only " : "Each of ", used.length === 1 ? b(`‘${tokenName(t.tokens[weights.indexOf(used[0])])}’`) : `${used.length} tokens`, ` counts, by ${show(used[0], 4)}.`, used.length > 1 ? out : "");
  }
  return bars(t.tokens.map((k, j) => [tokenName(k), weights[j]]), { format: percent, colour: "var(--reads)" });
}

function drawPooling(data) {
  const t = data.texts[0];
  const modes = t.pooling.map((x) => x.mode);
  const why = {
    mean: "the mean of all tokens: each counts the same",
    cls: "the vector of the first token, which was trained to gather the others",
    last: "the vector of the last token, the only one that has seen all others",
    max: "in each dimension the largest value of any token (shown: how many dimensions a token wins)",
    weighted_mean: "a mean in which later tokens count more, because they have seen more",
    sqrt_len_mean: "the sum of all tokens, divided by the square root of their number",
  };
  const weights = t.pooling[0].weights;
  const single = modes.length === 1 && modes[0] !== "max";
  const used = [...weights.keys()].filter((i) => weights[i] !== 0);
  const terms = used.slice(0, 4).map((i) => `${show(weights[i], 3)} · ${show(t.lastStates[i], 3).replace(/^−(.*)/, "(−$1)")}`);
  const total = sum(used.map((i) => weights[i] * t.lastStates[i]));
  section(
    "Pooling: many vectors → one",
    "pooling",
    p("After the last block there is a vector for each token. The text needs one. This model takes ", modes.map((m, i) => [i ? "; beside it " : "", b(m), ": ", why[m]]), "."),
    el("div", { class: "two" }, data.texts.map((text, i) => el("div", {}, tag(data, i), poolingBars(text)))),
    single ? [p(`For example dimension ${t.shown}, the largest of ${data.texts.length > 1 ? "A's" : "the"} pooled vector:`), el("p", { class: "sum mono" }, `${terms.join(" + ")}${used.length > 4 ? ` + … (${many(used.length, "token")})` : ""} = ${show(total, 4)}`)] : null,
    computedBy(data, ["pool", "concat"]),
  );
}

function drawVector(data) {
  const after = data.model.pooling.split(" then ").slice(1);
  const names = { Normalize: "is divided by its length, so that its length is 1", LayerNorm: "goes through a layer norm" };
  const numbers = (t) => {
    const largest = Math.max(...t.vector.map(Math.abs));
    const length = Math.sqrt(sum(t.vector.map((v) => v * v)));
    return [
      strips([""], t.vector.length, (_, j) => t.vector[j], largest, (_, j) => `dimension ${j}: ${show(t.vector[j])}`, "the vector", 44),
      p(el("span", { class: "mono" }, `[${t.vector.slice(0, 6).map((v) => show(v)).join(", ")}, …]`), ` has ${many(t.vector.length, "number")}, its length is ${show(length)}. The device's own vector differs from it by ${t.encodedError.toExponential(0)} at most.`),
    ];
  };
  section(
    "The vector",
    "vector",
    after.length ? p("The pooled vector ", after.map((m) => names[m] || `goes through ${m}`).join(", then "), ".") : null,
    p("This is all that is kept of the text: what a search, a clustering or a classifier gets to see."),
    eachText(data, numbers),
    computedBy(data, data.dispatches.filter((d) => d.part === "after the pooling").map((d) => d.op)),
  );
}
