// Keeps the page in step with the monitor: whatever has changed is asked for and drawn.

import { drawAlerts } from "./alerts.js";
import { ask, listen } from "./asking.js";
import { openCell, openFromAddress, redrawCell } from "./cell.js";
import { refresh as refreshHeat, whenOpened } from "./heat.js";
import { drawScores, drawVersions, redraw } from "./plots.js";
import { $, count, instant, make, put, span } from "./words.js";

let pipeline = "monitor";
let openAlerts = 0;

function title() {
  document.title = openAlerts ? `(${openAlerts}) ${pipeline} · monitor` : `${pipeline} · monitor`;
}

async function state() {
  const found = await ask("/api/state");
  pipeline = found.pipeline;
  put($("pipeline"), pipeline);
  title();
  const problems = Object.entries(found.problems);
  $("problems").hidden = problems.length === 0;
  put($("problems"), problems.map(([part, text]) => `What is shown of ${part} may be old: ${text}`).join(" · "));
  return found;
}

// --- freshness

let ages = [];

function drawAges() {
  $("ages-empty").hidden = ages.length > 0;
  $("ages").replaceChildren(...ages.map((one) => {
    const age = one.since === null ? null : (Date.now() - Date.parse(one.since)) / 1000;
    const old = age !== null && one.limit_seconds !== null && age > one.limit_seconds;
    const box = make("div");
    const value = make("dd", age === null ? "–" : `${span(age)} ago`, old ? { class: "bad" } : {});
    const more = [old ? `more than ${span(one.limit_seconds)}` : "", one.event ? `through ${instant(one.event)}` : "", one.detail].filter(Boolean).join(" · ");
    box.append(make("dt", one.name), value, make("dd", more, { class: "note" }));
    return box;
  }));
}

// --- decisions

function drawDecisions(found) {
  const lines = (found.promotions ?? []).slice(-8).reverse().map((one) => {
    const line = make("tr");
    const held = one.hold ? `${one.reason} (held)` : one.reason;
    line.append(...[instant(one.at), one.alias, one.version === null ? "none" : count(one.version), one.by, held].map((text) => make("td", text)));
    return line;
  });
  $("promotions").tBodies[0].replaceChildren(...lines);
  $("promotions").closest(".scroll").hidden = lines.length === 0;
}

const PARTS = {
  windows: async () => {
    const [now, scores] = await Promise.all([state(), ask("/api/scores")]);
    await refreshHeat(now);
    drawScores(scores);
    redrawCell();
  },
  alerts: async () => {
    openAlerts = drawAlerts(await ask("/api/alerts"));
    title();
  },
  versions: async () => {
    const found = await ask("/api/versions");
    drawVersions(found);
    drawDecisions(found);
  },
  freshness: async () => {
    ages = await ask("/api/freshness");
    drawAges();
  },
};

// One look at a part at a time; what changed meanwhile is looked at once more.
const busy = new Map();

async function changed(part) {
  if (busy.has(part)) {
    busy.set(part, true);
    return;
  }
  do {
    busy.set(part, false);
    try {
      await Promise.all([PARTS[part](), part === "windows" ? null : state()]);
    } catch (error) {
      console.warn(String(error));
    }
  } while (busy.get(part));
  busy.delete(part);
  document.documentElement.dataset[`drawn${part}`] = "yes";
}

const SAID = { live: ["good", "live"], polling: ["wait", "looking every 10 s"], waiting: ["bad", "no answer; trying again"] };

function said(how) {
  const [look, text] = SAID[how];
  $("live").className = `pill ${look}`;
  put($("live"), text);
}

// --- light and dark

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const THEMES = ["auto", "light", "dark"];

function shade() {
  const chosen = document.documentElement.dataset.theme;
  document.documentElement.dataset.shade = chosen ?? (prefersDark.matches ? "dark" : "light");
  put($("theme"), `Theme: ${chosen ?? "auto"}`);
  redraw();
}

$("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % THEMES.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("stream-trainer-theme", next);
  } catch { /* storage may be forbidden */ }
  shade();
});
prefersDark.addEventListener("change", shade);
shade();

whenOpened(openCell);
addEventListener("hashchange", openFromAddress);
document.addEventListener("click", (event) => {
  // The same link again changes no address, and is still meant.
  const link = event.target.closest?.("a[href^='#cell?']");
  if (link && link.getAttribute("href") === location.hash) openFromAddress();
});
setInterval(() => !document.hidden && drawAges(), 1000);
listen(Object.keys(PARTS), changed, said);
openFromAddress();
