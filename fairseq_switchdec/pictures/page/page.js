// The page: its data, the columns, what is shown and in which order.

const data = JSON.parse(document.getElementById("data").textContent);
const inputs = data.inputs;
const pathOf = (input) => data.paths[input.path - 1];
const byId = (id) => document.getElementById(id);

const widest = Math.max(...data.paths.slice(0, 1).map((path) => drawing(path).width));
// id, title, class of its cells, width, what it sorts by, what it shows; those without values are left out.
const columns = [
  ["id", "input", "number", "52px", (input) => input.id, (input) => String(input.id)],
  ["cost", "cost", "share", "64px", (input) => input.cost, (input) => percent(input.cost)],
  ["seconds_cost", "seconds", "share", "64px", (input) => input.seconds_cost, (input) => percent(input.seconds_cost)],
  ["budget", "budget", "number", "52px", (input) => (input.budget === "auto" ? 2 : input.budget),
    (input) => String(input.budget)],
  ["source_tokens", "source", "number", "52px", (input) => input.source_tokens, (input) => count(input.source_tokens)],
  ["tokens_dropped", "dropped", "share", "64px", (input) => input.tokens_dropped,
    (input) => percent(input.tokens_dropped)],
  ["target_tokens", "output", "number", "52px", (input) => input.target_tokens, (input) => count(input.target_tokens)],
  ["path", "path", "number", "48px", (input) => input.path, (input) => String(input.path)],
  ["drawing", "what ran", "words", `${widest}px`, (input) => pathOf(input).skippedCount, (input) => drawn(pathOf(input))],
  ["text", "text", "excerpt", "minmax(160px, 1fr)", null,
    (input) => excerpt(input.hypothesis ?? (input.source ? joined(input.source.slice(0, 50)) : ""))],
].filter(([id]) => ["drawing", "text"].includes(id) || inputs.some((input) => input[id] !== undefined));

for (const path of data.paths) {
  const keeps = path.stacks.flatMap(({ sublayers }) => sublayers.flatMap(({ keep }) => keep));
  path.skippedCount = keeps.filter((kept) => !kept).length;
}

// --- the list ---

const widths = columns.map(([, , , width]) => width);
const least = widths.reduce((sum, width) => sum + Number(width.match(/\d+/)[0]) + 10, 40); // and the gaps
document.documentElement.style.setProperty("--columns", widths.join(" "));
document.documentElement.style.setProperty("--least", `${least}px`);
const list = new VirtualList(byId("list"), byId("rows"), makeRow, choose);

function makeRow(input) {
  const cells = columns.map(([, , kind, , value, show]) => {
    const cell = element("div", { role: "gridcell", class: kind }, show(input));
    if (kind === "share") cell.style.setProperty("--share", `${Math.min(100, 100 * value(input))}%`);
    return cell;
  });
  return element("div", { class: "row" }, ...cells);
}

function choose(input) {
  const path = pathOf(input), panel = byId("detail"), others = `${count(path.inputs)} ${path.inputs === 1 ? "input" : "inputs"}`;
  const same = element("button", { type: "button" }, `path ${input.path}: ${others}`);
  same.addEventListener("click", () => showOnly({ path: input.path }));
  panel.replaceChildren(element("h2", {}, `Input ${input.id}`), ...details(input, path, same));
  panel.scrollTop = 0;
  history.replaceState(null, "", `#${input.id}`);
}

// --- order ---

const order = { column: columns[0], falling: false };

function makeHeads() {
  const row = element("div", { class: "row", role: "row", "aria-rowindex": "1" });
  for (const column of columns) {
    const [, title, kind, , value] = column;
    const aligned = { share: "number", excerpt: "words" }[kind] ?? kind;
    const head = element("div", { role: "columnheader", class: aligned });
    if (value) {
      const arrow = column !== order.column ? "" : order.falling ? " ▾" : " ▴";
      const button = element("button", { type: "button" }, title + arrow);
      if (column === order.column) head.setAttribute("aria-sort", order.falling ? "descending" : "ascending");
      button.addEventListener("click", () => sortBy(column));
      head.append(button);
    } else {
      head.append(element("span", { class: "hint" }, title));
    }
    row.append(head);
  }
  const focused = [...byId("columns").querySelectorAll("button")].indexOf(document.activeElement);
  byId("columns").replaceChildren(row);
  if (focused >= 0) byId("columns").querySelectorAll("button")[focused].focus();
}

function sortBy(column) {
  order.falling = column === order.column && !order.falling;
  order.column = column;
  makeHeads();
  show();
}

// --- which ---

const fields = ["words", "cost-from", "cost-to", "source-from", "source-to", "path"];

/** An input's texts for searching, made when they are first asked for. */
function searched(input) {
  const texts = [input.source ? joined(input.source) : "", input.hypothesis ?? "", input.reference ?? ""];
  return (input.searched ??= texts.join("\n").toLowerCase());
}

function show() {
  const number = (id) => (byId(id).value === "" ? null : byId(id).valueAsNumber);
  const [costFrom, costTo, from, to, path] = fields.slice(1).map(number);
  const words = byId("words").value.trim().toLowerCase();
  const within = (value, low, high) => (low === null || value >= low) && (high === null || value <= high);
  const found = inputs.filter((input) =>
    within(100 * input.cost, costFrom, costTo) && within(input.source_tokens, from, to) &&
    (path === null || input.path === path) && (!words || searched(input).includes(words)));
  const value = order.column[4], sign = order.falling ? -1 : 1;
  found.sort((one, other) => sign * (value(one) - value(other)) || one.id - other.id);
  list.show(found);
  const all = found.length === inputs.length;
  byId("count").value = all ? `${count(inputs.length)} inputs` : `${count(found.length)} of ${count(inputs.length)} inputs`;
}

/** Show the inputs that a chart or a button stands for: values of fields, the others empty. */
function showOnly(values) {
  for (const field of fields) byId(field).value = values[field] ?? "";
  show();
}

let waiting = 0;
byId("filters").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(show, 120); // while the user types
});
byId("filters").addEventListener("reset", () => setTimeout(show));
byId("filters").addEventListener("submit", (event) => event.preventDefault());

document.querySelector(".charts").addEventListener("click", ({ target }) => {
  const of = target.dataset;
  if (of.path === undefined && of.cost === undefined) return;
  const [costFrom, costTo] = (of.cost ?? " ").split(" "), [from, to] = (of.source ?? " ").split(" ");
  showOnly({ path: of.path, "cost-from": costFrom, "cost-to": costTo, "source-from": from, "source-to": to });
});

document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !(event.target instanceof HTMLInputElement)) {
    event.preventDefault();
    byId("words").focus();
  } else if (event.key === "Escape") {
    showOnly({});
    byId("list").focus();
  }
});

makeHeads();
show();
const named = inputs.findIndex((input) => `#${input.id}` === location.hash);
list.choose(Math.max(named, 0));
