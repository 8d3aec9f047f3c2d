// Draws /page/state every second and sends the form of /page/contract to /predict.
// Whatever comes from the service is written as text, never as HTML.

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const KEY = "stream-trainer-key";
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

// --- words and numbers

const whole = new Intl.NumberFormat("en");
const count = (n) => (n < 1e7 ? whole.format(n) : new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 2 }).format(n));
const rate = (n) => (n === 0 ? "0" : n < 10 ? n.toFixed(1) : whole.format(Math.round(n)));
const number = (x) => String(Number(x.toPrecision(6)));
const percent = (p) => `${(100 * p).toFixed(1)} %`;

function seconds(s) {
  if (s === null || s === undefined) return "–";
  if (s < 0.001) return `${(1000 * s).toFixed(2)} ms`;
  if (s < 1) return `${(1000 * s).toFixed(s < 0.01 ? 1 : 0)} ms`;
  if (s < 60) return `${s.toFixed(1)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// Without milliseconds: a figure that changes every second should not change its unit as well.
const age = (s) => (s < 60 ? `${s.toFixed(1)} s` : seconds(s));
const instant = (text) => (text ? text.slice(0, 16).replace("T", " ") : "–");
const words = (reason) => reason.replaceAll("_", " ");

function put(id, text) {
  const node = $(id);
  if (node.textContent !== text) node.textContent = text;
}

function make(tag, text = "", attributes = {}) {
  const node = document.createElement(tag);
  if (text !== "") node.textContent = text;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

// --- asking the service

class Refused extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { accept: "application/json", ...options.headers, ...(key ? { "x-api-key": key } : {}) };
  const response = await fetch(path, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  if (response.status === 401) wantKey(key ? "The service does not accept this key." : "");
  throw new Refused({ status: response.status, detail: `The service answered ${response.status}.`, ...body });
}

let keyWasAsked = false;

function wantKey(reason, again = false) {
  if ($("key-dialog").open || (keyWasAsked && !again)) return;
  keyWasAsked = true;
  if (reason) put("key-reason", reason);
  $("key").value = "";
  $("key-dialog").showModal();
}

$("key-open").addEventListener("click", () => wantKey("", true));
$("key-dialog").addEventListener("close", () => {
  const { returnValue } = $("key-dialog");
  if (returnValue === "use" && $("key").value.trim()) sessionStorage.setItem(KEY, $("key").value.trim());
  if (returnValue === "forget") sessionStorage.removeItem(KEY);
  if (returnValue === "use") keyWasAsked = false;
  $("key").value = "";
  $("key-dialog").returnValue = "";
  refresh();
  if (!contract) start();
});

// --- the state

function health(kind, text) {
  $("health").className = `pill ${kind}`;
  put("health", text);
}

const NOT_READY = {
  no_version: "no version yet",
  version_refused: "the version was refused",
};

function draw(state) {
  const { served, traffic, latency, swaps, log } = state;
  put("pipeline", state.pipeline);
  document.title = served ? `${state.pipeline} · ${served.number}` : state.pipeline;
  health(served ? "good" : "wait", served ? "serving" : (NOT_READY[state.reason] ?? words(state.reason)));
  drawVersion(served, state.at);
  const over = `last ${traffic.window_seconds < 90 ? `${Math.max(1, Math.round(traffic.window_seconds))} s` : seconds(traffic.window_seconds)}`;
  const whose = state.worker ? `, worker ${state.worker.number} of ${state.worker.count}` : "";
  for (const id of ["traffic-window", "latency-window", "swaps-window"]) {
    put(id, id === "swaps-window" ? whose.slice(2) : over + whose);
    $(id).title = whose ? "All numbers here are of this worker; /metrics has those of all workers." : "";
  }
  put("requests-rate", rate(traffic.requests_per_second));
  put("rows-rate", rate(traffic.rows_per_second));
  put("rows", count(traffic.rows));
  reasons($("errors"), traffic.errors.map((e) => [words(e.reason), count(e.total), e.recent ? `${count(e.recent)} lately` : ""]));
  line($("requests-line"), traffic.series.map((p) => [p.seconds_ago, p.requests_per_second]), "Requests a second", rate);
  const bounded = (s) => (s !== null && s >= latency.beyond ? `> ${seconds(s)}` : seconds(s));
  put("p50", bounded(latency.p50_seconds));
  put("p99", bounded(latency.p99_seconds));
  put("queue", count(state.queue_rows));
  line($("latency-line"), traffic.series.map((p) => [p.seconds_ago, p.p99_seconds]), "Latency, 99th percentile", seconds);
  drawLog(log);
  drawSwaps(swaps, state.at);
  if (served && contract) fillLater();
}

function drawVersion(served, at) {
  const before = $("version").textContent;
  put("version", served ? count(served.number) : "none");
  $("version").classList.toggle("none", !served);
  if (served && before !== $("version").textContent) {
    $("version").classList.remove("fresh");
    requestAnimationFrame(() => $("version").classList.add("fresh"));
  }
  put("since", !served ? "nothing serves yet" : served.since ? `serving for ${age((Date.parse(at) - Date.parse(served.since)) / 1000)}` : "\u00a0");
  put("staleness", served ? age(served.staleness_seconds) : "–");
  put("age", served ? age(served.weight_age_seconds) : "–");
  put("learned", served ? count(served.rows.trained) : "–");
  const lost = served ? served.rows.rejected + served.rows.skipped + served.rows.quarantined : 0;
  put("not-learned", lost ? `rows; ${count(lost)} left out` : "rows");
  const [day, time] = instant(served?.trained_through).split(" ");
  put("through", day);
  put("through-time", time ? `at ${time} UTC` : "event time");
  const offsets = Object.entries(served?.next_offsets ?? {});
  list($("offsets"), offsets.map(([topic, parts]) => `${topic}: ${Object.entries(parts).map(([p, o]) => `${p} → ${whole.format(o)}`).join(", ")}`));
}

function drawLog(log) {
  const dropped = log.dropped.reduce((sum, one) => sum + one.total, 0);
  put("log-sent", count(log.sent));
  put("log-waiting", count(log.waiting));
  put("log-dropped", count(dropped));
  $("log-dropped").classList.toggle("bad", dropped > 0);
  $("log-dropped").title = log.dropped.map((one) => `${words(one.reason)}: ${count(one.total)}`).join(", ");
}

function drawSwaps(swaps, at) {
  const refused = swaps.refused.reduce((sum, one) => sum + one.total, 0);
  put("swaps", count(swaps.count));
  put("swap-last", seconds(swaps.last_seconds));
  put("event-to-served", swaps.event_to_served_seconds === null ? "–" : age(swaps.event_to_served_seconds));
  put("refused-count", count(refused));
  $("refused-count").classList.toggle("bad", refused > 0);
  const failures = swaps.following_errors.map((one) => [`while following: ${words(one.reason)}`, count(one.total)]);
  reasons($("refused"), [...swaps.refused.map((one) => [`refused: ${words(one.reason)}`, count(one.total)]), ...failures]);
  bars($("swap-bars"), swaps.timeline);
  const body = $("timeline");
  const rows = swaps.timeline.slice(-body.rows.length).reverse();
  [...body.rows].forEach((row, i) => {
    const one = rows[i];
    const ago = one && Math.max(0, (Date.parse(at) - Date.parse(one.at)) / 1000);
    const cells = one ? [count(one.version), `${age(ago)} ago`, seconds(one.seconds), count(one.rows), instant(one.trained_through)] : ["\u00a0", "", "", "", ""];
    cells.forEach((text, j) => { row.cells[j].textContent = text; });
  });
}

function list(node, texts) {
  if (node.dataset.shown === JSON.stringify(texts)) return;
  node.dataset.shown = JSON.stringify(texts);
  node.replaceChildren(...texts.map((text) => make("li", text)));
}

function reasons(node, pairs) {
  if (node.dataset.shown === JSON.stringify(pairs)) return;
  node.dataset.shown = JSON.stringify(pairs);
  const items = pairs.map(([reason, text, lately = ""]) => {
    const item = make("li");
    item.append(make("span", reason), make("small", lately), make("b", text));
    return item;
  });
  node.replaceChildren(...(items.length ? items : [make("li", "none", { class: "none" })]));
}

function shape(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function line(svg, points, name, words) {
  const known = points.filter(([, y]) => y !== null);
  const top = Math.max(...known.map(([, y]) => y), Number.MIN_VALUE);
  const span = Math.max(30, ...known.map(([ago]) => ago));
  const spots = known.map(([ago, y]) => [(120 * (1 - ago / span)).toFixed(2), (31 - (30 * y) / top).toFixed(2)]);
  const path = spots.map(([x, y], i) => `${i ? "L" : "M"}${x} ${y}`).join("");
  const parts = spots.length > 1 ? [shape("path", { class: "area", d: `${path}L${spots.at(-1)[0]} 32L${spots[0][0]} 32Z` }), shape("path", { d: path })] : [];
  svg.replaceChildren(...parts);
  svg.setAttribute("aria-label", known.length ? `${name}, last ${seconds(span)}: now ${words(known.at(-1)[1])}, at most ${words(top)}` : `${name}: nothing yet`);
}

function bars(svg, timeline) {
  const top = Math.max(...timeline.map((one) => one.seconds ?? 0), Number.MIN_VALUE);
  const parts = timeline.map((one, i) => {
    const height = Math.max(1.5, (31 * (one.seconds ?? 0)) / top);
    const bar = shape("rect", { x: 120 - 3 * (timeline.length - i), y: 32 - height, width: 2.2, height });
    const title = shape("title", {});
    title.textContent = `version ${one.version}: ${seconds(one.seconds)}`;
    bar.append(title);
    return bar;
  });
  svg.replaceChildren(...parts);
  svg.setAttribute("aria-label", timeline.length ? `How long the last ${timeline.length} swaps took: at most ${seconds(top)}` : "No swaps yet");
}

let heard = performance.now();

async function refresh() {
  try {
    draw(await ask("/page/state"));
    heard = performance.now();
    document.body.classList.remove("stale");
  } catch (error) {
    document.body.classList.add("stale");
    const since = age((performance.now() - heard) / 1000);
    const wants = { 401: "an API key is needed", 403: "this key may not look", 429: "asked too often" }[error.problem?.status];
    health("bad", wants ?? (error.problem ? error.problem.detail : `no answer since ${since}`));
  }
}

async function watch() {
  for (;;) {
    if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    await refresh();
    if (!contract) await start();
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
  }
}

// --- the form

let contract = null;
let starting = null;
let example = 0;

function start() {
  starting ??= ask("/page/contract").then(build, () => {}).finally(() => { starting = null; });
  return starting;
}

// A page that was open before the first version had nothing to fill its form with.
let filled = false;

async function fillLater() {
  if (filled) return;
  filled = true;
  const { examples } = await ask("/page/contract").catch(() => ({ examples: [] }));
  if (examples.length === 0 || contract.fields.some(({ node }) => node.value !== "")) return;
  contract.examples = examples;
  $("another").hidden = examples.length < 2;
  fill();
}

function hint(field) {
  const parts = [];
  if (field.low !== undefined || field.high !== undefined) {
    parts.push(field.low === undefined ? `at most ${number(field.high)}` : field.high === undefined ? `from ${number(field.low)}` : `${number(field.low)} to ${number(field.high)}`);
  }
  if (field.kind === "vector") parts.push(`${field.size} numbers, separated by commas`);
  if (field.kind === "key") parts.push("the key; best left empty here");
  if (field.kind === "time") parts.push("event time, with its offset");
  if (field.kind === "text") parts.push("text");
  if (field.kind === "choice") parts.push(`one of ${field.options.length}`);
  if (field.segment) parts.push("segment");
  if (!field.required && field.kind !== "key" && field.kind !== "time") parts.push("may be empty");
  return parts.join(" · ");
}

function input(field, id) {
  const attributes = { id, "aria-describedby": `${id}-note`, autocomplete: "off" };
  if (field.required) attributes["aria-required"] = "true";
  if (field.kind === "choice") {
    const node = make("select", "", attributes);
    node.append(make("option", field.required ? "choose" : "none", { value: "" }), ...field.options.map((one) => make("option", one)));
    return node;
  }
  if (field.kind === "vector") return make("textarea", "", { ...attributes, rows: 2, spellcheck: "false" });
  if (field.kind !== "number") return make("input", "", { ...attributes, type: "text", spellcheck: "false" });
  const bounds = Object.fromEntries([["min", field.low], ["max", field.high]].filter(([, value]) => value !== undefined));
  return make("input", "", { ...attributes, ...bounds, type: "number", step: "any", inputmode: "decimal" });
}

function build(form) {
  contract = form;
  $("fields").replaceChildren(...form.fields.map((field, i) => {
    const box = make("div", "", { class: field.kind === "vector" ? "field long" : "field" });
    field.node = input(field, `f${i}`);
    field.note = make("p", hint(field), { class: "note", id: `f${i}-note` });
    box.append(make("label", field.name, { for: `f${i}` }), field.node, field.note);
    return box;
  }));
  $("another").hidden = form.examples.length < 2;
  $("ask").classList.remove("unbuilt");
  fill();
}

function fill() {
  if (contract.examples.length === 0) return;
  filled = true;
  const values = contract.examples[example++ % contract.examples.length];
  for (const field of contract.fields) {
    const value = (Object.hasOwn(values, field.name) ? values[field.name] : null) ?? "";
    const text = Array.isArray(value) ? value.join(", ") : String(value);
    if (field.kind === "choice" && text && ![...field.node.options].some((one) => one.value === text)) {
      field.node.append(make("option", `${text} (counts as other)`, { value: text }));
    }
    field.node.value = text;
  }
  complain({});
}

class Unreadable extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

function read(field) {
  if (field.node.validity.badInput) throw new Unreadable(field, "this is not a number");
  const text = field.node.value;
  if (text.trim() === "") return undefined;
  if (field.kind === "number") return Number(text);
  if (field.kind !== "vector") return text;
  return text.trim().split(/[\s,;]+/).filter((part) => part !== "").map((part) => {
    if (!Number.isFinite(Number(part))) throw new Unreadable(field, `“${part}” is not a number`);
    return Number(part);
  });
}

// A path such as `$.instances[0].spend` or `$.instances[0].vector[3]`; of a missing field only the message has the name.
function blamed({ where = "", detail = "" }) {
  const rest = where.startsWith("$.instances[0].") ? where.slice("$.instances[0].".length) : null;
  const missing = /required field `(.*)`$/s.exec(detail)?.[1];
  const fits = ({ name }) => (rest === null ? name === missing : rest === name || rest.startsWith(`${name}[`));
  return contract.fields.filter(fits).sort((a, b) => b.name.length - a.name.length)[0];
}

function complain({ field, message = "" }) {
  for (const one of contract.fields) {
    const wrong = one === field;
    one.node.toggleAttribute("aria-invalid", wrong);
    if (wrong) one.node.setAttribute("aria-invalid", "true");
    one.note.classList.toggle("error", wrong);
    one.note.textContent = wrong ? message.replace(/^Object missing required field .*$/s, "this is needed") : hint(one);
  }
  put("form-error", field ? "" : message);
  field?.node.focus();
}

async function predict() {
  const row = {};
  for (const field of contract.fields) {
    const value = read(field);
    if (value !== undefined) Object.defineProperty(row, field.name, { value, enumerable: true });
  }
  const began = performance.now();
  const body = JSON.stringify({ instances: [row] });
  const answer = await ask("/predict", { method: "POST", headers: { "content-type": "application/json" }, body });
  return { answer, took: (performance.now() - began) / 1000 };
}

$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!contract) return;
  $("send").disabled = true;
  try {
    const { answer, took } = await predict();
    complain({});
    showAnswer(answer, took);
    refresh();
  } catch (error) {
    const problem = error.problem ?? {};
    const field = error.field ?? (error.problem && blamed(problem));
    const message = error instanceof Unreadable || error instanceof Refused ? error.message : "The service does not answer.";
    complain({ field, message });
    showFailure(field ? `See “${field.name}”.` : message, problem);
  } finally {
    $("send").disabled = false;
  }
});
$("another").addEventListener("click", fill);

// --- the answer

function share(name, p) {
  const node = make("div", "", { class: "share" });
  const track = make("div", "", { class: "track" });
  const part = make("div");
  part.style.width = percent(p).replace(" ", "");
  track.append(part);
  node.append(make("span", name), make("span", percent(p)), track);
  return node;
}

function shares({ output, probability, prediction }) {
  if (contract.kind === "number") return [];
  if (contract.kind === "binary") return [share(`probability of ${prediction ? "" : "not "}${contract.label}`, probability ?? Math.max(output, 1 - output))];
  const ranked = contract.classes.map((name, i) => [name, output[i]]).sort((a, b) => b[1] - a[1]);
  return ranked.slice(0, 6).map(([name, p]) => share(name, p));
}

function facts(pairs) {
  const node = make("dl", "", { class: "facts" });
  for (const [name, value] of pairs) {
    const one = make("div");
    one.append(make("dt", name), make("dd", value));
    node.append(one);
  }
  return node;
}

function trace(id) {
  const command = make("div", "", { class: "command" });
  const text = `${contract.trace} ${id}`;
  const copy = make("button", "Copy", { type: "button", class: "quiet", "aria-label": "Copy the command" });
  copy.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(text).then(() => { copy.textContent = "Copied"; }, () => {});
  });
  command.append(make("code", text), copy);
  return [make("h3", "Trace it to the records behind it"), command];
}

function showAnswer(answer, took) {
  const [one] = answer.predictions;
  const said = make("p", "", { class: "said" });
  const value = typeof one.prediction === "number" ? number(one.prediction) : String(one.prediction);
  said.append(make("small", `${contract.label}: `), value);
  $("answer").replaceChildren(
    said,
    ...shares(one),
    facts([
      ["Version", whole.format(answer.model_version)],
      ["Staleness", age(answer.staleness_seconds)],
      ["Trained through", instant(answer.trained_through)],
      ["Round trip", seconds(took)],
    ]),
    ...trace(one.prediction_id),
  );
  $("answer").scrollIntoView({ block: "nearest" });
}

function showFailure(message, problem) {
  const parts = [make("p", "No prediction", { class: "said" }), make("p", message, { class: "error" })];
  if (problem.reason) parts.push(make("p", `reason: ${words(problem.reason)}`, { class: "note" }));
  if (problem.prediction_ids?.length) parts.push(...trace(problem.prediction_ids[0]));
  $("answer").replaceChildren(...parts);
}

$("knowledge").open = matchMedia("(min-width: 70rem)").matches;
watch();
