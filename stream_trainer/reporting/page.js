"use strict";
// Draws the plots with the page's own colours, again whenever light and dark change. All text from the data was made plain before.
const data = JSON.parse(document.getElementById("data").textContent);
const config = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function plain(text) {
  // plotly reads a few tags in text
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function base() {
  const axis = { gridcolor: colour("grid"), linecolor: colour("soft"), zeroline: false, showline: true, automargin: true };
  return {
    font: { color: colour("text"), size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 56, r: 24, t: 12, b: 90 },
    legend: { orientation: "h", x: 0, y: -0.2, yanchor: "top" },
    hoverlabel: { bgcolor: colour("card"), bordercolor: colour("edge"), font: { color: colour("text") } },
    xaxis: { ...axis },
    yaxis: { ...axis },
  };
}

const looks = {
  model: { colour: "model", width: 2.5, dash: "solid" },
  trained: { colour: "model", width: 1.5, dash: "dot" },
  no_change: { colour: "no-change", width: 1.5, dash: "solid" },
  majority: { colour: "majority", width: 1.5, dash: "solid" },
};

function drawCurve(id, curve, panel) {
  const layout = base();
  const traces = panel.lines.map((line) => ({
    x: line.x,
    y: line.y,
    customdata: line.versions,
    name: line.name,
    type: "scatter",
    mode: line.x.length === 1 ? "markers" : "lines",
    line: { color: colour(looks[line.role].colour), width: looks[line.role].width, dash: looks[line.role].dash },
    marker: { color: colour(looks[line.role].colour), size: 8 },
    hovertemplate: line.role === "model" ? "%{y:.4f} (version %{customdata})" : "%{y:.4f}",
  })).reverse();
  const rug = (x, name, symbol, shade, size) => ({
    x, y: x.map(() => curve.y_range[0]), name, type: "scatter", mode: "markers", cliponaxis: false, hoverinfo: "skip",
    marker: { symbol, color: shade, size, line: { color: shade, width: 1 } },
  });
  traces.push(rug(curve.ticks, "a version", "line-ns-open", colour("soft"), 7));
  if (curve.failed.length) traces.push(rug(curve.failed, "failed its gates", "x-thin-open", colour("bad"), 8));
  Object.assign(layout.xaxis, { title: { text: "labelled rows learned", standoff: 6 }, range: curve.x_range });
  Object.assign(layout.yaxis, { range: curve.y_range });
  layout.hovermode = "x unified";
  layout.shapes = curve.marks.map((mark) => ({
    type: "line", x0: mark.events, x1: mark.events, yref: "paper", y0: 0, y1: 1, line: { color: colour("soft"), width: 1, dash: "dash" },
  }));
  layout.annotations = curve.marks.filter((mark) => mark.version !== null).map((mark) => ({
    x: mark.events, y: 1, yref: "paper", xanchor: "left", yanchor: "top", showarrow: false,
    text: `v${mark.version}`, hovertext: plain(mark.text), font: { color: colour("soft"), size: 10 },
  }));
  Plotly.react(id, traces, layout, config);
}

function drawDiagram(id, diagram) {
  const most = Math.max(...data.diagrams.flatMap((each) => each.bins.map((bin) => bin.rows)));
  const layout = base();
  const traces = [
    {
      type: "bar", name: "rows in the bin", yaxis: "y2", marker: { color: colour("bars") }, hovertemplate: "%{y:,} rows<extra></extra>",
      x: diagram.bins.map((bin) => (bin.low + bin.high) / 2), y: diagram.bins.map((bin) => bin.rows),
      width: diagram.bins.map((bin) => (bin.high - bin.low) * 0.92),
    },
    { type: "scatter", mode: "lines", name: "perfect", x: [0, 1], y: [0, 1], hoverinfo: "skip", line: { color: colour("soft"), dash: "dash", width: 1 } },
    {
      type: "scatter", mode: "lines+markers", name: "model", x: diagram.bins.map((bin) => bin.forecast), y: diagram.bins.map((bin) => bin.frequency),
      customdata: diagram.bins.map((bin) => bin.rows), line: { color: colour("model"), width: 2.5 }, marker: { size: 8 },
      hovertemplate: "forecast %{x:.3f}, came true %{y:.3f}<br>%{customdata:,} rows<extra></extra>",
    },
  ];
  Object.assign(layout.xaxis, { title: { text: "forecast probability", standoff: 6 }, range: [-0.02, 1.02] });
  Object.assign(layout.yaxis, { title: { text: "came true" }, range: [-0.02, 1.02], overlaying: "y2" });
  layout.yaxis2 = { range: [0, most * 3], tickvals: [0, most], side: "right", showgrid: false, zeroline: false, automargin: true, tickfont: { color: colour("soft"), size: 10 } };
  Plotly.react(id, traces, layout, config);
}

function draw() {
  data.curves.forEach((curve, i) => curve.panels.forEach((panel, j) => drawCurve(`curve-${i}-${j}`, curve, panel)));
  data.diagrams.forEach((diagram, i) => drawDiagram(`diagram-${i}`, diagram));
  document.documentElement.dataset.drawn = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
