// Numbers, instants and names as words; and elements whose text is text. Nothing from the service ever becomes HTML.

export const $ = (id) => document.getElementById(id);

const whole = new Intl.NumberFormat("en");
export const count = (n) => whole.format(n);

export function figure(x) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size < 1e-4) return x.toExponential(1).replace("e-", "e−");
  return size >= 1e5 ? whole.format(Math.round(x)) : String(Number(x.toPrecision(3)));
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.max(0, seconds);
  if (s < 60) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.round(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.round((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const two = (n) => String(n).padStart(2, "0");

export function clock(text) {
  const at = new Date(text);
  const seconds = at.getUTCSeconds() ? `:${two(at.getUTCSeconds())}` : "";
  return `${two(at.getUTCHours())}:${two(at.getUTCMinutes())}${seconds}`;
}

export function day(text, year = false) {
  const at = new Date(text);
  return `${at.getUTCDate()} ${MONTHS[at.getUTCMonth()]}${year ? ` ${at.getUTCFullYear()}` : ""}`;
}

export const instant = (text) => (text ? `${day(text, true)} ${clock(text)}` : "–");

export function between(start, end) {
  return day(start, true) === day(end, true) ? `${day(start, true)}, ${clock(start)} to ${clock(end)}` : `${instant(start)} to ${instant(end)}`;
}

export function feature(name) {
  if (name === "") return "all together";
  if (name === "_output") return "answers of the model";
  if (name === "_label") return "labels";
  if (name.startsWith("_projection/")) return `projection ${name.slice(12)}`;
  return name;
}

export const segment = (name) => (name === "" ? "all rows" : name.replace(/^_version=/, "version "));
export const against = (name) => ({ learned: "what the version has learned", baseline: "the baseline", limit: "a limit, or its own past" })[name] ?? name;
export const words = (text) => text.replaceAll("_", " ");

export function make(tag, text = "", attributes = {}) {
  const node = document.createElement(tag);
  if (text !== "") node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function choose(select, options, chosen) {
  const key = JSON.stringify(options);
  if (select.dataset.shown !== key) {
    select.dataset.shown = key;
    select.replaceChildren(...options.map(([value, text]) => make("option", text, { value })));
  }
  select.value = options.some(([value]) => value === chosen) ? chosen : (options[0]?.[0] ?? "");
}

export function pair(name, value) {
  const box = make("div");
  box.append(make("dt", name), make("dd", value));
  return box;
}

export function offsets(node, found) {
  const texts = Object.entries(found).flatMap(([topic, parts]) =>
    Object.entries(parts).map(([part, [first, next]]) => `${topic}, partition ${part}: offsets ${count(first)} to ${count(next - 1)}`));
  node.replaceChildren(...(texts.length ? texts : ["no offsets were kept"]).map((text) => make("li", text)));
}
