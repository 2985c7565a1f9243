// Everything about one input: what ran, its figures, its texts.

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const count = (number) => number.toLocaleString("en");

/** A path as a small drawing: a line a sublayer, a column a layer; filled ran, hollow was skipped. */
function drawing(path) {
  const size = 5, pitch = 7, gap = 6;
  let left = 1, ran = "", skipped = "";
  const tallest = Math.max(...path.stacks.map((stack) => stack.sublayers.length));
  for (const { sublayers } of path.stacks) {
    sublayers.forEach(({ keep }, line) => keep.forEach((kept, layer) => {
      const x = left + layer * pitch, y = 1 + line * pitch;
      if (kept) ran += `M${x} ${y}h${size}v${size}h-${size}z`;
      else skipped += `M${x + 0.5} ${y + 0.5}h${size - 1}v${size - 1}h-${size - 1}z`;
    }));
    left += sublayers[0].keep.length * pitch + gap;
  }
  return { width: left - gap, height: tallest * pitch, ran, skipped };
}

/** The drawing of a path in a list. */
function drawn(path) {
  path.drawing ??= drawing(path);
  const { width, height, ran, skipped } = path.drawing;
  return shape("svg", { width, height, role: "img", "aria-label": `skipped: ${path.skipped}` },
    shape("path", { class: "ran", d: ran }), shape("path", { class: "skipped", d: skipped }));
}

/** A stack's sublayers as a table that can be read aloud and copied. */
function table({ name, sublayers }) {
  const heads = sublayers[0].keep.map((_, layer) => element("th", { scope: "col" }, String(layer + 1)));
  const lines = sublayers.map(({ name: kind, keep }) => element("tr", {},
    element("th", { scope: "row" }, kind),
    ...keep.map((kept) => element("td", { class: kept ? "on" : "off" },
      element("span", { "aria-hidden": "true" }, kept ? "■" : "□"),
      element("span", { class: "hidden" }, kept ? "ran" : "skipped")))));
  return element("table", { class: "grid" }, element("caption", {}, name),
    element("thead", {}, element("tr", {}, element("td"), ...heads)), element("tbody", {}, ...lines));
}

/** Names and values. */
function figures(pairs) {
  const made = pairs.filter(([, value]) => value !== undefined)
    .map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  return element("dl", { class: "facts" }, ...made);
}

/** What is said of a source's tokens. */
function tokensInWords(input, path) {
  const of = `${count(input.dropped)} of ${count(input.content_tokens)} that may be (${path.strategy})`;
  const dropped = input.dropped ? `${of}, ${percent(input.tokens_dropped)} of all` : "none";
  return input.dropped && input.source && !input.known ? `${dropped}; which of them is not known` : dropped;
}

/** A heading and a text, or what is said where there is none. */
function section(title, pieces) {
  const missing = element("p", { class: "text absent" }, pieces === null ? "not given" : "empty");
  return [element("h3", {}, title), pieces && joined(pieces) ? paragraph(pieces) : missing];
}

/** All of an input but its name. `beside`: what stands beside the title of what ran. */
function details(input, path, ...beside) {
  const whole = (text) => (text === null ? null : [[KEPT, text]]);
  return [
    figures([
      ["cost", percent(input.cost)],
      ["cost in seconds", input.seconds_cost === undefined ? undefined : percent(input.seconds_cost)],
      ["budget", input.budget === undefined ? undefined : String(input.budget)],
      ["source tokens", count(input.source_tokens)],
      ["output tokens", count(input.target_tokens)],
      ["tokens dropped", tokensInWords(input, path)],
    ]),
    element("h3", {}, "What ran ", element("span", { class: "hint" }, "■ ran  □ skipped  "), ...beside),
    element("div", { class: "grids" }, ...path.stacks.map(table)),
    ...section("Output", whole(input.hypothesis)),
    ...(input.reference === undefined ? [] : section("Reference", whole(input.reference))),
    ...section("Source", input.source),
  ];
}
