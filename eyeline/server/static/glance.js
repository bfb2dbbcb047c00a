// The whole trace at a glance, spans from left to right: reliance on the image, how concentrated it is, and each
// region's part of it.

import {make, set, sharpen} from "./dom.js";
import {sum} from "./run.js";
import {amount, plain, several} from "./words.js";

const MOST_HEIGHT = 320; // CSS pixels of the matrix
const WIDEST = 72; // CSS pixels of a column

/** `on.over(span or null, region or null, event)` and `on.pick(span, region)` hear of the pointer. */
export function createGlance(on) {
  const element = make("section", "glance"), charts = {}, words = make("p", "facts");
  const heading = make("h2", "", "The whole trace at a glance");
  element.append(heading);
  for (const [name, label] of [["reliance", "Reliance on the image"], ["spread", "Regions it is spread over"], ["matrix", "Each region’s part"]]) {
    const row = make("div", `chart ${name}`), names = make("div", "names"), canvas = make("canvas"), title = make("h3", "", label);
    const range = make("span", "range");
    set(canvas, {role: "img"});
    row.append(make("div", "label", title, range), names, canvas);
    element.append(row);
    charts[name] = {canvas, names, range, title};
  }
  element.append(words);
  let geometry = null, order = [], totals = [], stamp = "", drawn = null;
  const cells = make("canvas"); // the matrix without what is marked on it: drawn once for each new span

  function update(run, shown, chosen) {
    element.hidden = !run.spans.length;
    if (!run.spans.length) return;
    const rowHeight = Math.max(3, Math.min(18, MOST_HEIGHT / run.regions.length));
    charts.matrix.canvas.style.height = `${rowHeight * run.regions.length}px`;
    const style = getComputedStyle(element);
    const [up, down, soft, cell, ink] = ["--up", "--down", "--soft", "--cell", "--ink"].map(name => style.getPropertyValue(name));
    const width = charts.matrix.canvas.getBoundingClientRect().width, column = Math.min(WIDEST, width / run.spans.length);
    const gap = column > 6 ? 1 : 0;
    geometry = {column, rowHeight};
    const dim = i => i === shown ? 1 : .5;

    const reliance = sharpen(charts.reliance.canvas);
    bars(reliance, run.spans.map(span => Math.max(0, span.visual) / run.mostVisual));
    charts.reliance.range.textContent = `up to ${amount(run.mostVisual, run.unit)}${run.unit === "attention" ? "" : " nats"}`;
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
    const now = [run.spans.length, width, devicePixelRatio, cell].join();
    if (drawn !== run || stamp !== now) drawCells(run, column, rowHeight, gap, {up, down, cell});
    [drawn, stamp] = [run, now];
    context.drawImage(cells, 0, 0, width, rowHeight * order.length);
    context.strokeStyle = ink;
    context.lineWidth = 1.5;
    if (run.spans[shown]) context.strokeRect(shown * column + .5, .75, Math.max(1, column - gap - 1), rowHeight * order.length - 2);
    for (const k of chosen) context.strokeRect(.75, order.indexOf(k) * rowHeight + .5, column * run.spans.length - gap - 1.5, rowHeight - 2);

  }

  function drawCells(run, column, rowHeight, gap, {up, down, cell}) {
    totals = run.regions.map((_, k) => sum(run.spans.map(span => Math.max(0, span.effects[k]))));
    order = run.regions.map((_, k) => k).sort((a, b) => totals[b] - totals[a]);
    Object.assign(cells, {width: charts.matrix.canvas.width, height: charts.matrix.canvas.height});
    const context = cells.getContext("2d"), top = Math.max(run.floor, ...run.restsOn), tall = rowHeight - (rowHeight > 5 ? 1 : 0);
    const dense = cells.height / (rowHeight * order.length);
    context.setTransform(dense, 0, 0, dense, 0, 0);
    order.forEach((k, row) => run.spans.forEach((span, i) => {
      const value = span.effects[k] / top;
      context.globalAlpha = 1;
      context.fillStyle = cell;
      context.fillRect(i * column, row * rowHeight, column - gap, tall);
      context.globalAlpha = Math.min(1, Math.abs(value)) ** .7;
      context.fillStyle = value < 0 ? down : up;
      context.fillRect(i * column, row * rowHeight, column - gap, tall);
    }));
    const every = Math.max(1, Math.ceil(13 / rowHeight));
    charts.matrix.names.replaceChildren(...order.filter((_, row) => row % every === 0).map(k => make("span", "", run.regions[k])));
    charts.matrix.names.style.setProperty("--row", `${rowHeight * every}px`);
    describe(run);
  }

  function describe(run) {
    const [best] = order, spans = run.spans, visual = spans.reduce((a, b) => b.visual > a.visual ? b : a);
    const unit = run.unit === "attention" ? "" : " nats";
    const middle = spans.map(span => span.spread).sort((a, b) => a - b)[Math.floor(spans.length / 2)];
    words.textContent = `${several(spans.length, "span")}. The most visual is span ${visual.number + 1} with ${amount(visual.visual, run.unit)}${unit}; ` +
      `the region with most in all is ${run.regions[best]} (${amount(run.unit === "attention" ? totals[best] / spans.length : totals[best], run.unit)}${run.unit === "attention" ? " on average" : unit}); ` +
      `half of the spans spread over ${plain(middle)} regions or fewer.`;
    for (const {canvas, title} of Object.values(charts)) set(canvas, {"aria-label": `${title.textContent}. ${words.textContent}`});
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
