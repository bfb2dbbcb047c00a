// The whole trace at a glance, spans from left to right: reliance on the image, how concentrated it is, and each
// region's part of it.

import {make, set, sharpen, term} from "./dom.js";
import {sum, values} from "./run.js";
import {MEANINGS, plain, several, withUnit} from "./words.js";

// in rem
const MOST_HEIGHT = 20; // of the matrix
const ROW = 1.1; // of a row of it, where there is room
const NAME = .85; // of a row's name
const WIDEST = 4.5; // of a column
const PAIRED = 24; // spans whose charts have room beside each other

/** `on.over(span or null, region or null, event)` and `on.pick(span, region)` hear of the pointer. */
export function createGlance(on) {
  const element = make("section", "glance"), charts = {}, words = make("p", "facts");
  const heading = make("h2", "", "The whole trace at a glance");
  element.append(heading);
  for (const [name, label, meaning] of [["reliance", "Reliance on the image", MEANINGS.reliance],
    ["spread", "Regions it is spread over", MEANINGS.spread], ["matrix", "Each region’s part", MEANINGS.part]]) {
    const row = make("div", `chart ${name}`), names = make("div", "names"), canvas = make("canvas"), title = make("h3", "", term(label, meaning));
    const range = make("span", "range");
    set(canvas, {role: "img"});
    row.append(make("div", "label", title, range), names, canvas);
    element.append(row);
    charts[name] = {canvas, names, range, label};
  }
  element.append(words);
  let geometry = null, order = [], totals = [], stamp = "", drawn = null;
  const cells = make("canvas"); // the matrix without what is marked on it: drawn once for each new span

  function update(run, shown, chosen) {
    element.hidden = !run.spans.length;
    if (!run.spans.length) return;
    element.classList.toggle("paired", run.spans.length <= PAIRED);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const rowHeight = Math.max(3, Math.min(ROW, MOST_HEIGHT / run.regions.length) * rem);
    charts.matrix.canvas.style.height = `${rowHeight * run.regions.length}px`;
    const style = getComputedStyle(element);
    const [up, down, soft, cell, ink] = ["--up", "--down", "--soft", "--cell", "--ink"].map(name => style.getPropertyValue(name));
    const {width} = charts.matrix.canvas.getBoundingClientRect();
    if (!width) return; // it is not on the page now
    const column = Math.min(WIDEST * rem, width / run.spans.length), gap = column > 6 ? 1 : 0;
    geometry = {column, rowHeight};
    const dim = i => i === shown ? 1 : .5;

    const reliance = sharpen(charts.reliance.canvas);
    bars(reliance, run.spans.map(span => Math.max(0, span.visual) / run.mostVisual));
    const reached = run.spans.reduce((most, span) => Math.max(most, span.visual), 0), axis = reached < run.mostVisual ? `, of ${withUnit(run.mostVisual, run.unit)} on this scale` : "";
    charts.reliance.range.textContent = `up to ${withUnit(reached, run.unit)}${axis}`;
    function bars({context, height}, values) {
      context.fillStyle = up;
      values.forEach((value, i) => {
        context.globalAlpha = dim(i);
        const tall = Math.max(1, value * (height - 1));
        context.fillRect(i * column, height - tall, column - gap, tall);
      });
    }

    const most = Math.max(2, ...run.spans.map(span => span.spread)), lines = sharpen(charts.spread.canvas);
    charts.spread.range.textContent = `1 to ${plain(most)}: lower is more concentrated`;
    lines.context.strokeStyle = lines.context.fillStyle = soft;
    lines.context.lineWidth = 1.5;
    lines.context.lineJoin = "round";
    const y = span => lines.height - 4 - (Math.max(1, span.spread) - 1) / (most - 1) * (lines.height - 8);
    lines.context.beginPath();
    run.spans.forEach((span, i) => lines.context.lineTo((i + .5) * column, y(span)));
    lines.context.stroke();
    lines.context.beginPath();
    if (run.spans[shown]) lines.context.arc((shown + .5) * column, y(run.spans[shown]), 3.5, 0, 7);
    lines.context.fill();

    const {context} = sharpen(charts.matrix.canvas);
    const now = [run.spans.length, width, rowHeight, devicePixelRatio, cell].join();
    if (drawn !== run || stamp !== now) drawCells(run, column, rowHeight, gap, rem, {up, down, cell});
    [drawn, stamp] = [run, now];
    context.drawImage(cells, 0, 0, width, rowHeight * order.length);
    context.strokeStyle = ink;
    context.lineWidth = 1.5;
    if (run.spans[shown]) context.strokeRect(shown * column + .5, .75, Math.max(1, column - gap - 1), rowHeight * order.length - 2);
    for (const k of chosen) context.strokeRect(.75, order.indexOf(k) * rowHeight + .5, column * run.spans.length - gap - 1.5, rowHeight - 2);

  }

  function drawCells(run, column, rowHeight, gap, rem, {up, down, cell}) {
    totals = run.regions.map((_, k) => sum(run.spans.map(span => values(span)[k])));
    order = run.regions.map((_, k) => k).sort((a, b) => totals[b] - totals[a]);
    Object.assign(cells, {width: charts.matrix.canvas.width, height: charts.matrix.canvas.height});
    const context = cells.getContext("2d"), top = Math.max(run.full, ...run.restsOn), tall = rowHeight - (rowHeight > 5 ? 1 : 0);
    const dense = cells.height / (rowHeight * order.length);
    context.setTransform(dense, 0, 0, dense, 0, 0);
    order.forEach((k, row) => run.spans.forEach((span, i) => {
      const value = values(span)[k] / top;
      context.globalAlpha = 1;
      context.fillStyle = cell;
      context.fillRect(i * column, row * rowHeight, column - gap, tall);
      context.globalAlpha = Math.min(1, Math.abs(value)) ** .7;
      context.fillStyle = value < 0 ? down : up;
      context.fillRect(i * column, row * rowHeight, column - gap, tall);
    }));
    const every = Math.max(1, Math.ceil(NAME * rem / rowHeight));
    charts.matrix.names.replaceChildren(...order.filter((_, row) => row % every === 0).map(k => make("span", "", run.regions[k])));
    charts.matrix.names.style.setProperty("--row", `${rowHeight * every}px`);
    describe(run);
  }

  function describe(run) {
    const [best] = order, spans = run.spans, visual = spans.reduce((a, b) => b.visual > a.visual ? b : a);
    const middle = spans.map(span => span.spread).sort((a, b) => a - b)[Math.floor(spans.length / 2)];
    const most = run.unit === "attention" ? `${withUnit(totals[best] / spans.length, run.unit)} on average` : withUnit(totals[best], run.unit);
    words.textContent = `${several(spans.length, "span")}. The most visual is span ${visual.index} with ${withUnit(visual.visual, run.unit)}; ` +
      `the region with most in all is ${run.regions[best]} (${most}); half of the spans spread over ${plain(middle)} regions or fewer.`;
    for (const {canvas, label} of Object.values(charts)) set(canvas, {"aria-label": `${label}. ${words.textContent}`});
  }

  const at = (event, canvas) => {
    if (!geometry) return [null, null];
    const box = canvas.getBoundingClientRect();
    const row = canvas === charts.matrix.canvas ? Math.floor((event.clientY - box.top) / geometry.rowHeight) : -1;
    return [Math.floor((event.clientX - box.left) / geometry.column), order[row] ?? null];
  };
  for (const {canvas} of Object.values(charts)) {
    canvas.addEventListener("pointermove", event => on.over(...at(event, canvas), event));
    canvas.addEventListener("pointerleave", event => on.over(null, null, event));
    canvas.addEventListener("click", event => on.pick(...at(event, canvas)));
  }
  return {element, update};
}
