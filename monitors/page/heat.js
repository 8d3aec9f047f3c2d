// The heat map: a table of cells that the arrow keys walk, drawn anew when windows come, without losing one's place.

import { ask } from "./asking.js";
import { $, against, between, choose, clock, count, day, feature, figure, make, put, segment, words } from "./words.js";

const EDGES = [0.01, 0.05, 0.1, 0.25, 0.5];
const STATES = { d: "drift", q: "quiet", n: "not enough data", ".": "nothing tested" };
const PERS = [["1", "1 window"], ["4", "4 windows"], ["16", "16 windows"], ["64", "64 windows"]];
const asked = { by: "", segment: "", against: "", kind: "", per: "1", before: "" };

let shown = null;
let names = { kinds: [], against: [], features: [], segments: [] };
let place = { row: 0, column: 0 };
let open = () => {};
let newestAsk = 0;

export function whenOpened(call) {
  open = call;
}

export function showSegments(name) {
  Object.assign(asked, { by: name, segment: "" });
  controls();
  return load();
}

export async function refresh(state) {
  names = state.names;
  controls();
  await load(state);
}

function controls() {
  choose($("by"), [["", "features"], ...names.features.map((name) => [name, `segments of ${feature(name)}`])], asked.by);
  choose($("segment"), [["", "all rows"], ...names.segments.map((name) => [name, segment(name)])], asked.segment);
  choose($("against"), [["", "any reference"], ...names.against.map((name) => [name, against(name)])], asked.against);
  choose($("kind"), [["", "all"], ...names.kinds.map((name) => [name, words(name)])], asked.kind);
  choose($("per"), PERS, asked.per);
  for (const name of ["by", "segment", "against", "kind", "per"]) asked[name] = $(name).value;
  $("segment").disabled = asked.by !== "";
}

for (const name of ["by", "segment", "against", "kind", "per"]) {
  $(name).addEventListener("change", () => {
    asked[name] = $(name).value;
    if (name === "per") asked.before = "";
    $("segment").disabled = asked.by !== "";
    load();
  });
}
$("drift-form").addEventListener("submit", (event) => event.preventDefault());
$("earlier").addEventListener("click", () => {
  const columns = shown?.columns ?? [];
  const from = columns[Math.min(columns.length - 1, 1)];
  if (from) asked.before = from.start;
  load();
});
$("later").addEventListener("click", () => {
  asked.before = "";
  load();
});

function fitting() {
  const width = $("heat").clientWidth || 600;
  const wide = width > 640;
  return Math.max(8, Math.min(160, Math.floor((width - (wide ? 184 : 108)) / (wide ? 16 : 18))));
}

let resized = 0;
let fitted = 0;
new ResizeObserver(() => {
  clearTimeout(resized);
  resized = setTimeout(() => shown && fitting() !== fitted && load(), 150);
}).observe($("heat"));

async function load(state) {
  const mine = ++newestAsk;
  fitted = fitting();
  const { by, segment: part, ...rest } = asked;
  const grid = await ask("/api/windows", { ...rest, feature: by, segment: by ? "" : part, limit: fitted });
  if (mine !== newestAsk) return;
  shown = grid;
  draw(state);
}

function draw(state) {
  const { columns, rows } = shown;
  $("earlier").disabled = !shown.more;
  $("later").disabled = asked.before === "";
  put($("drift-span"), columns.length ? `${between(columns[0].start, columns.at(-1).end)} UTC` : "");
  const empty = rows.length === 0;
  $("heat").hidden = empty;
  $("heat-empty").hidden = !empty;
  if (empty) {
    const none = columns.length === 0 && (state?.windows ?? 0) === 0 && asked.before === "";
    put($("heat-empty"), none ? "No window has closed yet. A window closes once an event later than its end, by the pipeline’s lateness, has come: send predictions, and wait for the first one." : "No window holds a test of this choice: choose another segment, reference or kind.");
    put($("heat-said"), "\u00a0");
    return;
  }
  const focused = $("heat").contains(document.activeElement) && document.activeElement.matches("td") ? key(place) : null;
  const table = make("table", "", { role: "grid", "aria-label": "Drift, features by time", "aria-rowcount": rows.length + 1, "aria-colcount": columns.length + 1 });
  table.append(heading(columns), body(rows, columns));
  $("heat").replaceChildren(table);
  put($("heat-said"), shown.left_off ? `${count(shown.left_off)} more rows with less to tell are left out.` : "\u00a0");
  settle(focused);
}

function heading(columns) {
  const head = make("thead");
  const line = make("tr");
  line.append(make("th", asked.by ? "segment" : "feature", { scope: "col", class: "corner" }));
  const long = Date.parse(columns.at(-1).end) - Date.parse(columns[0].start) > 2 * 86_400_000;
  const step = Math.max(1, Math.ceil(columns.length / Math.max(2, Math.floor(($("heat").clientWidth - 184) / 72))));
  for (let i = 0; i < columns.length; i += step) {
    line.append(make("th", long ? day(columns[i].start) : clock(columns[i].start), { scope: "colgroup", colspan: Math.min(step, columns.length - i) }));
  }
  head.append(line);
  return head;
}

function body(rows, columns) {
  const group = make("tbody");
  group.append(...rows.map((row, r) => {
    const line = make("tr");
    const text = asked.by ? segment(row.segment) : feature(row.feature);
    const head = make("th", "", { scope: "row" });
    head.append(make("span", text, { title: text }));
    line.append(head, ...columns.map((column, c) => cell(row, column, r, c)));
    return line;
  }));
  return group;
}

function look(state, effect) {
  if (state === "n") return "few";
  if (state === ".") return "none";
  const step = effect === null ? 0 : EDGES.filter((edge) => effect >= edge).length;
  return `e${step}${state === "d" ? " alarm" : ""}`;
}

function cell(row, column, r, c) {
  const state = row.states[c];
  const node = make("td", "", { role: "gridcell", tabindex: "-1", class: look(state, row.effects[c]) });
  node.dataset.row = r;
  node.dataset.column = c;
  node.setAttribute("aria-label", sentence(row, column, c));
  return node;
}

function sentence(row, column, c) {
  const effect = row.effects[c] === null ? "" : `, PSI ${figure(row.effects[c])}`;
  const state = row.states[c] === "d" ? "alarm" : STATES[row.states[c]];
  return `${feature(row.feature)}, ${segment(row.segment)}, ${between(column.start, column.end)}: ${state}${effect}, ${count(column.rows)} rows`;
}

const at = ({ row, column }) => $("heat").querySelector(`td[data-row="${row}"][data-column="${column}"]`);
const key = ({ row, column }) => shown && at({ row, column })?.dataset && { row: keys?.rows[row], start: keys?.starts[column] };
let keys = null;

function settle(focused) {
  const before = keys && { row: keys.rows[place.row], start: keys.starts[place.column] };
  keys = { rows: shown.rows.map((row) => `${row.feature}\n${row.segment}`), starts: shown.columns.map((column) => column.start) };
  const wanted = focused ?? before;
  const row = keys.rows.indexOf(wanted?.row);
  const column = keys.starts.indexOf(wanted?.start);
  place = { row: Math.max(0, row), column: column < 0 ? shown.columns.length - 1 : column };
  at(place)?.setAttribute("tabindex", "0");
  if (focused) at(place)?.focus({ preventScroll: true });
}

function go(row, column) {
  const next = { row: Math.max(0, Math.min(shown.rows.length - 1, row)), column: Math.max(0, Math.min(shown.columns.length - 1, column)) };
  at(place)?.setAttribute("tabindex", "-1");
  place = next;
  at(place).setAttribute("tabindex", "0");
  at(place).focus();
}

const MOVES = {
  ArrowUp: ({ row, column }) => [row - 1, column],
  ArrowDown: ({ row, column }) => [row + 1, column],
  ArrowLeft: ({ row, column }) => [row, column - 1],
  ArrowRight: ({ row, column }) => [row, column + 1],
  Home: ({ row }) => [row, 0],
  End: ({ row }) => [row, Infinity],
  PageUp: ({ column }) => [0, column],
  PageDown: ({ column }) => [Infinity, column],
};

$("heat").addEventListener("keydown", (event) => {
  if (!event.target.matches("td") || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Enter" || event.key === " ") opened(event.target);
  else if (MOVES[event.key]) go(...MOVES[event.key](place));
  else return;
  event.preventDefault();
});
$("heat").addEventListener("click", (event) => {
  const node = event.target.closest("td");
  if (!node) return;
  go(Number(node.dataset.row), Number(node.dataset.column));
  opened(node);
});
const tell = (event) => {
  const node = event.target.closest?.("td");
  if (node) put($("heat-said"), node.getAttribute("aria-label"));
};
$("heat").addEventListener("focusin", tell);
$("heat").addEventListener("pointerover", tell);

function opened(node) {
  const row = shown.rows[node.dataset.row];
  const column = shown.columns[node.dataset.column];
  open({ start: column.windows[row.worst[node.dataset.column]], feature: row.feature, segment: row.segment });
}

export function focusPlace() {
  at(place)?.focus();
}
