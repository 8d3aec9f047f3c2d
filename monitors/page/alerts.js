// Alerts with their explanation, open ones first.

import { $, against, between, count, feature, figure, instant, make, offsets, pair, put, segment, span, words } from "./words.js";

const SHOWN_RESOLVED = 5;
let all = false;
let last = [];

export function drawAlerts(alerts) {
  last = alerts;
  const open = alerts.filter((one) => one.status !== "resolved");
  const resolved = alerts.filter((one) => one.status === "resolved");
  put($("alerts-count"), alerts.length ? `${count(open.length)} open, ${count(resolved.length)} resolved` : "");
  const expanded = new Set([...document.querySelectorAll("#alerts details[open]")].map((node) => node.dataset.key));
  const shown = [...open, ...(all ? resolved : resolved.slice(0, open.length ? 0 : SHOWN_RESOLVED))];
  const focused = document.activeElement?.closest?.("#alerts details")?.dataset.key;
  $("alerts").replaceChildren(...shown.map((one) => item(one, expanded.has(one.alert_key))));
  if (focused !== undefined) [...document.querySelectorAll("#alerts details")].find((node) => node.dataset.key === focused)?.querySelector("summary").focus();
  $("alerts-empty").hidden = alerts.length > 0;
  $("alerts-more").hidden = resolved.length === 0 || (shown.length === alerts.length && !all);
  put($("alerts-more"), all ? "Show fewer" : `Show ${count(resolved.length)} resolved`);
  return open.length;
}

$("alerts-more").addEventListener("click", () => {
  all = !all;
  drawAlerts(last);
});

function item(alert, expanded) {
  const resolved = alert.status === "resolved";
  const node = make("li", "", { class: `alert ${resolved ? "resolved" : ["critical", "warning", "info"].includes(alert.severity) ? alert.severity : "warning"}` });
  const details = make("details", "", {});
  details.dataset.key = alert.alert_key;
  details.open = expanded;
  const summary = make("summary");
  const head = make("span", "", { class: "alert-head" });
  head.append(make("b", resolved ? "resolved" : alert.severity, { class: "badge" }), make("span", what(alert), { class: "alert-what" }));
  if (alert.opened_at) head.append(make("small", `since ${instant(alert.opened_at)}`));
  summary.append(head, make("span", alert.message || alert.alert_key, { class: "alert-message" }));
  details.append(summary, facts(alert), links(alert));
  if (alert.ranking?.length) details.append(ranking(alert.ranking));
  const list = make("ul", "", { class: "offsets", "aria-label": "Records behind this alert" });
  offsets(list, alert.offsets ?? {});
  details.append(list);
  node.append(details);
  return node;
}

function what(alert) {
  const others = (alert.features ?? []).length - 1;
  const named = alert.feature ? feature(alert.feature) + (others > 0 ? ` and ${count(others)} more` : "") : alert.alert_key;
  return alert.segment ? `${named} · ${segment(alert.segment)}` : named;
}

function facts(alert) {
  const known = [
    ["Kind", alert.against ? `${words(alert.kind)}, against ${against(alert.against)}` : words(alert.kind)],
    ["Missing in the same rows", (alert.features ?? []).map(feature).join(", ")],
    ["Version", alert.model_version ? count(alert.model_version) : ""],
    ["Window", alert.window ? between(alert.window.start, alert.window.end) : ""],
    ["Open for", alert.opened_at && alert.updated_at ? span((Date.parse(alert.updated_at) - Date.parse(alert.opened_at)) / 1000) : ""],
    ["How much", how(alert.effect)],
    ["How sure", alert.p_value === undefined || alert.p_value === null ? "" : `p = ${figure(alert.p_value)}${alert.threshold ? `, alarm up to ${figure(alert.threshold)}` : ""}`],
    ["Rows", alert.rows || alert.window?.rows ? `${count(alert.rows ?? alert.window.rows)}${alert.reference_rows ? ` against ${count(alert.reference_rows)}` : ""}${alert.windows > 1 ? `, ${count(alert.windows)} windows together` : ""}` : ""],
    ["Share of the output’s change", alert.weight === undefined || alert.weight === null ? "" : `${Math.round(100 * alert.weight)} %`],
  ];
  const list = make("dl", "", { class: "facts" });
  list.append(...known.filter(([, text]) => text !== "").map(([name, text]) => pair(name, text)));
  return list;
}

export function how(effect) {
  if (!effect) return "";
  const parts = [["PSI", effect.psi], ["Jensen–Shannon", effect.jensen_shannon], ["Wasserstein", effect.wasserstein]];
  return parts.filter(([, x]) => x !== null && x !== undefined).map(([name, x]) => `${name} ${figure(x)}${name === "Wasserstein" ? " σ" : ""}`).join(", ");
}

function links(alert) {
  const bar = make("p", "", { class: "links" });
  if (alert.plot) bar.append(make("a", "Plot of this window", { href: alert.plot }));
  if (alert.report) bar.append(make("a", "Report", { href: `/reports/${encodeURIComponent(alert.report)}`, target: "_blank", rel: "noopener" }));
  return bar;
}

function ranking(ranked) {
  const list = make("ol", "", { class: "ranking", "aria-label": "Features by their share of the change of the model’s output" });
  list.append(...ranked.slice(0, 10).map(([name, weight]) => {
    const line = make("li");
    const meter = make("meter", "", { min: 0, max: 1, value: weight, "aria-label": `${Math.round(100 * weight)} %` });
    line.append(make("span", feature(name)), meter, make("span", `${Math.round(100 * weight)} %`));
    return line;
  }));
  return list;
}
