// One window of one feature: its histogram beside both references, and every test that was made of it.

import { how } from "./alerts.js";
import { ask, Refused } from "./asking.js";
import { focusPlace, showSegments } from "./heat.js";
import { drawHistogram } from "./plots.js";
import { $, against, between, count, feature, figure, instant, make, offsets, pair, put, segment, words } from "./words.js";

let current = null;

export function openFromAddress() {
  if (!location.hash.startsWith("#cell?")) return;
  const found = new URLSearchParams(location.hash.slice(6));
  if (found.get("start")) openCell({ start: found.get("start"), feature: found.get("feature") ?? "", segment: found.get("segment") ?? "" });
}

export async function openCell(asked, { quietly = false } = {}) {
  current = asked;
  const address = `#cell?${new URLSearchParams(asked)}`;
  if (location.hash !== address) history.replaceState(null, "", address);
  try {
    const found = await ask(`/api/windows/${encodeURIComponent(asked.start)}?${new URLSearchParams({ feature: asked.feature })}`);
    if (current !== asked) return;
    draw(found, asked);
  } catch (error) {
    if (current !== asked) return;
    problem(error instanceof Refused ? error.message : "The window cannot be read: is the monitor still running?", asked);
  }
  if (!quietly) {
    $("cell-title").focus({ preventScroll: true });
    $("cell").scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }
}

export function redrawCell() {
  if (current) openCell(current, { quietly: true });
}

function title(asked) {
  put($("cell-title"), `${feature(asked.feature)} · ${segment(asked.segment)}`);
}

function problem(text, asked) {
  $("cell").hidden = false;
  title(asked);
  put($("cell-when"), instant(asked.start));
  $("cell-body").hidden = true;
  $("cell-problem").hidden = false;
  put($("cell-problem"), text);
}

function draw(found, asked) {
  $("cell").hidden = false;
  $("cell-body").hidden = false;
  $("cell-problem").hidden = true;
  title(asked);
  const versions = found.versions ? `, answered by version${found.versions[0] === found.versions[1] ? ` ${count(found.versions[0])}` : `s ${count(found.versions[0])} to ${count(found.versions[1])}`}` : "";
  const late = found.late ? `, ${count(found.late)} late` : "";
  put($("cell-when"), `${between(found.start, found.end)} UTC: ${count(found.rows)} rows${late}${versions}`);
  for (const [id, start] of [["cell-previous", found.previous], ["cell-next", found.next]]) {
    $(id).disabled = !start;
    $(id).onclick = () => openCell({ ...asked, start }, { quietly: true });
  }
  $("cell-segments").onclick = () => showSegments(asked.feature).then(focusPlace);
  const { distinct } = found.findings.find((one) => one.distinct) ?? {};
  $("cell-distinct").hidden = !distinct;
  if (distinct) put($("cell-distinct"), `About ${count(Math.round(distinct.values))} different values in this window (standard error ${figure(100 * distinct.error)} %)`);
  byVersion(found.findings.filter((one) => one.segment.startsWith("_version=")));
  const mine = found.findings.filter((one) => one.segment === asked.segment);
  $("findings").replaceChildren(...mine.map((one) => finding(one, found.since)));
  $("findings-empty").hidden = mine.length > 0;
  offsets($("cell-offsets"), found.offsets);
  const curve = found.curves.find((one) => one.segment === asked.segment) ?? found.curves.find((one) => one.segment === "");
  histogram(curve, asked);
}

function histogram(curve, asked) {
  $("histogram").hidden = !curve;
  $("bins-details").hidden = !curve;
  $("histogram-empty").hidden = Boolean(curve);
  if (!curve) return;
  const whole = curve.segment === "" && asked.segment !== "" ? " (all rows: none is kept for this segment)" : "";
  put($("histogram-title"), `Share of rows in each bin${whole}`);
  drawHistogram(curve, asked.feature);
  const head = make("tr");
  head.append(...["Bin", "Window", "Baseline", "Learned"].map((name) => make("th", name, { scope: "col" })));
  const lines = curve.bins.map((name, i) => {
    const line = make("tr");
    line.append(make("th", name, { scope: "row" }), ...[curve.window, curve.baseline, curve.learned].map((counts) => make("td", counts.length ? count(counts[i] ?? 0) : "–")));
    return line;
  });
  $("bins").replaceChildren(head, ...lines);
}

// A window that several versions answered: each one's rows beside what that version has learned.
function byVersion(findings) {
  $("cell-versions").hidden = findings.length === 0;
  const head = make("tr");
  head.append(...["Version", "Test", "Rows", "Against", "PSI", "p-value", ""].map((name) => make("th", name, { scope: "col" })));
  const number = (one) => Number(one.segment.slice("_version=".length));
  const lines = [...findings].sort((a, b) => number(b) - number(a) || a.kind.localeCompare(b.kind)).map((one) => {
    const line = make("tr");
    const known = one.state !== "not enough data";
    line.append(make("th", count(number(one)), { scope: "row" }), ...[TITLES[one.kind] ?? words(one.kind), count(one.rows), count(one.reference_rows), known ? figure(one.effect.psi) : "–", known ? figure(one.p_value) : "–", one.state].map((text) => make("td", text)));
    return line;
  });
  $("by-version").replaceChildren(head, ...lines);
}

const TITLES = { drift: "Values", quality: "Quality", prediction: "Answers", label: "Labels", multivariate: "Features together", loss: "Realised loss", concept: "Concept", estimate: "Estimated performance", schema: "Records that cannot be read" };

function finding(one, since) {
  const state = { drift: "alarm", quiet: "quiet", "not enough data": "few" }[one.state];
  const node = make("li", "", { class: `finding ${state}` });
  const head = make("p", "", { class: "finding-head" });
  head.append(make("b", one.state === "drift" ? "drift" : one.state, { class: "badge" }), make("span", `${TITLES[one.kind] ?? words(one.kind)} against ${against(one.against)}`));
  node.append(head);
  if (one.detail) node.append(make("p", one.detail, { class: "note" }));
  const known = [
    ["p-value", one.state === "not enough data" ? "" : `${figure(one.p_value)}${one.threshold ? ` (alarm up to ${figure(one.threshold)})` : ""}`],
    ["Effect", how(one.effect)],
    ["Rows", `${count(one.rows)} against ${count(one.reference_rows)}`],
    ["Windows together", one.windows > 1 ? count(one.windows) : ""],
    ["Since", one.state === "drift" && since ? `${instant(since)} UTC` : ""],
    ["Share of the output’s change", one.weight === null ? "" : `${Math.round(100 * one.weight)} %`],
  ];
  const list = make("dl", "", { class: "facts" });
  list.append(...known.filter(([, text]) => text !== "").map(([name, text]) => pair(name, text)));
  node.append(list);
  return node;
}

export function closeCell() {
  if ($("cell").hidden) return;
  current = null;
  $("cell").hidden = true;
  history.replaceState(null, "", location.pathname);
  focusPlace();
}

$("cell-close").addEventListener("click", closeCell);
$("cell").addEventListener("keydown", (event) => {
  if (event.key === "Escape") closeCell();
});
