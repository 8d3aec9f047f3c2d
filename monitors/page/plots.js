// The plots, by plotly.js, in the page's own colours; drawn again whenever light and dark change.

import { $, choose, count, feature, figure, instant, put, words } from "./words.js";

const config = { responsive: true, displayModeBar: false, showTips: false };
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const last = new Map();

// plotly.js reads a few tags in text
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const short = (text, most = 22) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function base(size = {}) {
  const axis = { gridcolor: colour("grid"), linecolor: colour("soft"), zeroline: false, showline: true, automargin: true, fixedrange: true };
  return {
    font: { color: colour("text"), size: 12, family: getComputedStyle(document.body).fontFamily },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 48, r: 12, t: 8, b: 40, ...size },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("edge"), font: { color: colour("text") } },
    dragmode: false,
    xaxis: { ...axis },
    yaxis: { ...axis },
  };
}

function show(id, draw) {
  last.set(id, draw);
  draw();
  $(id).dataset.drawn = document.documentElement.dataset.shade;
}

export function redraw() {
  for (const [id, draw] of last) {
    if ($(id).hidden || $(id).closest("[hidden]")) continue;
    draw();
    $(id).dataset.drawn = document.documentElement.dataset.shade;
  }
}

export function drawHistogram(curve, name) {
  const places = curve.bins.map((_, i) => i);
  const shares = (counts) => {
    const total = counts.reduce((sum, one) => sum + one, 0);
    return counts.map((one) => (total ? one / total : 0));
  };
  const total = (counts) => counts.reduce((sum, one) => sum + one, 0);
  const bins = curve.bins.map(plain);
  const line = (counts, text, tint, dash) => ({
    x: places, y: shares(counts), customdata: counts.map((one, i) => [bins[i], count(one)]), name: `${text} (${count(total(counts))})`, type: "scatter",
    mode: curve.bins.length > 1 ? "lines" : "markers", line: { shape: "hvh", color: colour(tint), width: 2, dash }, hovertemplate: "%{y:.2%} (%{customdata[1]} rows)",
  });
  show("histogram", () => {
    const layout = base();
    const traces = [
      { x: places, y: shares(curve.window), customdata: curve.window.map((one) => count(one)), name: `this window (${count(total(curve.window))})`, type: "bar", marker: { color: colour("bars"), line: { color: colour("bar-edge"), width: 1 } }, hovertemplate: "%{y:.2%} (%{customdata} rows)" },
      ...(total(curve.learned) ? [line(curve.learned, "learned", "model", "solid")] : []),
      ...(total(curve.baseline) ? [line(curve.baseline, "baseline", "reference", "dot")] : []),
    ];
    const room = Math.max(3, Math.floor(($("histogram").clientWidth || 500) / 58));
    const every = Math.ceil(curve.bins.length / room);
    const ticks = places.filter((i) => i % every === 0);
    Object.assign(layout.xaxis, { tickvals: ticks, ticktext: ticks.map((i) => plain(short(curve.bins[i]))), range: [-0.6, curve.bins.length - 0.4], showgrid: false });
    Object.assign(layout.yaxis, { tickformat: ".0%", rangemode: "tozero" });
    Object.assign(layout, { bargap: 0.08, hovermode: "x unified" });
    Plotly.react("histogram", traces, layout, config);
  });
  const largest = shares(curve.window).map((share, i) => [Math.abs(share - (shares(curve.learned)[i] ?? 0)), i]).sort((a, b) => b[0] - a[0])[0]?.[1];
  const moved = largest === undefined || !total(curve.learned) ? "" : `; most changed: ${curve.bins[largest]}, ${figure(100 * shares(curve.learned)[largest])} % learned, ${figure(100 * shares(curve.window)[largest])} % now`;
  $("histogram").setAttribute("aria-label", `Histogram of ${feature(name)} in ${count(curve.bins.length)} bins${moved}`);
}

// --- learning

const ROLES = [["", "model", "model", 2.5, "solid"], ["estimated_", "model, estimated without labels", "model", 1.5, "dot"], ["no_change_", "no change", "no-change", 1.5, "solid"], ["majority_", "majority", "majority", 1.5, "solid"]];
let chosen = "";
let scored = null;

function metrics(scores) {
  const names = Object.keys(scores);
  const bare = names.map((name) => ROLES.slice(1).reduce((left, [prefix]) => (left.startsWith(prefix) ? left.slice(prefix.length) : left), name));
  return [...new Set(bare)].sort((a, b) => (b === "log_loss") - (a === "log_loss"));
}

$("metric").addEventListener("change", () => {
  chosen = $("metric").value;
  drawScores(scored);
});

export function drawScores(found) {
  scored = found;
  const names = metrics(found.scores);
  const empty = names.length === 0;
  $("learning").hidden = empty;
  $("learning-empty").hidden = !empty;
  $("metric").closest(".controls").hidden = empty;
  if (empty) return;
  choose($("metric"), names.map((name) => [name, words(name)]), chosen);
  chosen = $("metric").value;
  const metric = chosen;
  const lines = ROLES.filter(([prefix]) => found.scores[prefix + metric]);
  show("learning", () => {
    const layout = base();
    const traces = lines.map(([prefix, text, tint, width, dash]) => ({
      x: found.ends, y: found.scores[prefix + metric], name: text, type: "scatter", mode: found.ends.length > 1 ? "lines" : "markers",
      connectgaps: false, line: { color: colour(tint), width, dash }, marker: { color: colour(tint), size: 8 }, hovertemplate: "%{y:.4f}",
    })).reverse();
    Object.assign(layout.yaxis, { title: { text: plain(words(metric)), standoff: 4 } });
    layout.hovermode = "x unified";
    layout.legend.traceorder = "reversed";
    Plotly.react("learning", traces, layout, config);
  });
  const told = lines.map(([prefix, text]) => `${text} ${figure(found.scores[prefix + metric].findLast((x) => x !== null))}`);
  $("learning").setAttribute("aria-label", `${words(metric)} by window; newest: ${told.join(", ")}`);
}

// --- versions

export function drawVersions(found) {
  const versions = found.versions ?? [];
  const promotions = (found.promotions ?? []).filter((one) => one.version !== null);
  const empty = versions.length === 0;
  $("versions").hidden = empty;
  $("versions-empty").hidden = !empty;
  const now = [found.champion ? `champion ${count(found.champion)}` : "", found.challenger ? `challenger ${count(found.challenger)}` : "", found.highest ? `newest ${count(found.highest)}` : ""];
  put($("versions-now"), now.filter(Boolean).join(", "));
  if (empty) return;
  const [passed, failed] = [versions.filter((one) => one.passed), versions.filter((one) => !one.passed)];
  const first = Date.parse(versions[0].created_at);
  const decided = promotions.filter((one) => Date.parse(one.at) >= first);
  const dots = (list, text, tint, symbol, size) => ({
    x: list.map((one) => one.created_at), y: list.map((one) => one.version), name: text, type: "scatter", mode: "markers", marker: { color: colour(tint), symbol, size, line: { color: colour(tint), width: 1.5 } },
    customdata: list.map((one) => [count(one.trained), plain(one.failed.join(", "))]), hovertemplate: `version %{y}, %{customdata[0]} rows${text === "failed its gates" ? ": %{customdata[1]}" : ""}<extra></extra>`,
  });
  show("versions", () => {
    const layout = base();
    const traces = [dots(passed, "version", "model", "circle", 5)];
    if (failed.length) traces.push(dots(failed, "failed its gates", "bad", "x-thin-open", 9));
    if (decided.length) {
      traces.push({
        x: decided.map((one) => one.at), y: decided.map((one) => one.version), name: "promotion", type: "scatter", mode: "markers",
        marker: { color: colour("no-change"), symbol: decided.map((one) => (one.alias === "champion" ? "star" : "diamond")), size: 12, line: { color: colour("card"), width: 1 } },
        customdata: decided.map((one) => [plain(one.alias), plain(short(one.by, 40)), plain(short(one.reason, 60))]), hovertemplate: "%{customdata[0]}: version %{y}<br>by %{customdata[1]}<br>%{customdata[2]}<extra></extra>",
      });
    }
    Object.assign(layout.yaxis, { title: { text: "version", standoff: 4 }, tickformat: "d" });
    layout.hovermode = "closest";
    Plotly.react("versions", traces, layout, config);
  });
  $("versions").setAttribute("aria-label", `Timeline of ${count(versions.length)} versions, ${count(failed.length)} of them failed their gates, ${count(decided.length)} decisions; the newest is ${count(found.highest)}, made ${instant(versions.at(-1).created_at)}`);
}
