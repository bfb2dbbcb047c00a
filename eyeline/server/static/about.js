// What the shown span rests on: its strongest regions with their intervals, and beside them, once asked for, what
// hiding each region for real does.

import {button, make, set} from "./dom.js";
import {still} from "./pictures.js";
import {largest, ranked} from "./run.js";
import {amount, duration, plain, several, signed} from "./words.js";

const FEW = 5;

/** `on.over(region or null)`, `on.pick(region)`; `on.verify(span)` and `on.stop()` where ablation can be asked for. */
export function createAbout(on) {
  const element = make("section", "about"), title = make("h2"), measure = make("span");
  const list = make("ol", "strongest"), more = button("", "more", () => { all = !all; redraw(); });
  const facts = make("p", "facts"), evidence = make("div", "evidence");
  const verify = button("", "action", () => (state?.running ? on.stop() : on.verify(span)));
  element.setAttribute("aria-label", "What the span rests on");
  element.append(make("div", "heading", title, measure), list, more, facts, evidence);
  let run = null, span = null, state = null, all = false;

  function show(newRun, newSpan, chosen) {
    if (newSpan !== span) all = false;
    [run, span, state] = [newRun, newSpan, newSpan?.verified ?? null];
    redraw();
    mark(chosen);
  }

  function redraw() {
    if (!span) {
      title.textContent = run?.over ? "No span was attributed in this run." : "Waiting for the first span";
      measure.textContent = "";
      for (const part of [list, facts, evidence]) part.replaceChildren();
      more.hidden = true;
      return;
    }
    title.textContent = `Span ${span.number + 1} of ${run.spans.length} ${run.unit === "attention" ? "attends to" : "rests on"}`;
    measure.textContent = run.unit === "attention" ? "attention, not effect" : `effect${span.interval ? " [interval]" : ""}`;
    const order = ranked(span), shown = all ? order : order.slice(0, FEW);
    const actual = k => state?.actual.get(k);
    const bounds = shown.flatMap(k => [span.effects[k], actual(k) ?? 0, ...(span.interval?.[k] ?? [])]);
    const low = Math.min(0, ...bounds), high = Math.max(run.floor, ...bounds), at = x => (x - low) / (high - low) * 100;
    list.replaceChildren(...shown.map((k, i) => row(k, i, at, actual(k))));
    more.hidden = order.length <= FEW;
    more.textContent = all ? "Fewer" : `All ${order.length} regions`;
    set(more, {"aria-expanded": String(all)});
    facts.replaceChildren(...[
      span.whole_image !== null && `whole image ${signed(span.whole_image)} nats`,
      `log p ${signed(span.log_prob)}`,
      `tokens ${span.start}–${span.end - 1}`,
      `attributed in ${duration(span.latency_s)}`,
      `spread over ${plain(span.spread)} regions`,
      span.cut && "cut at the longest span length",
    ].filter(Boolean).map(fact => make("span", "", fact)));
    showEvidence();
  }

  function row(k, i, at, actual) {
    const effect = span.effects[k], ends = span.interval?.[k], plot = make("span", "plot");
    const part = (name, from, to) => {
      const piece = make("i", name);
      piece.style.left = `${at(from)}%`;
      if (to !== undefined) piece.style.right = `${100 - at(to)}%`;
      plot.append(piece);
    };
    part(effect < 0 ? "bar negative" : "bar", Math.min(0, effect), Math.max(0, effect));
    if (actual !== undefined) part("actual", Math.min(0, actual), Math.max(0, actual));
    part("zero", 0);
    if (ends) part("interval", ...ends);
    set(plot, {"aria-hidden": "true"});
    const number = make("span", "number", run.unit === "attention" ? amount(effect, run.unit) : `${signed(effect)} nats `);
    if (ends && actual === undefined) number.append(make("small", "", `[${signed(ends[0])}, ${signed(ends[1])}]`));
    if (actual !== undefined) number.append(make("b", "", `actual ${signed(actual)}`));
    const choose = button("", "", () => on.pick(k));
    choose.append(make("span", "place", i < 3 ? make("em", "", String(i + 1)) : "", run.regions[k]), plot, number);
    choose.dataset.region = k;
    choose.addEventListener("pointerenter", () => on.over(k));
    choose.addEventListener("pointerleave", () => on.over(null));
    choose.addEventListener("focus", () => on.over(k));
    choose.addEventListener("blur", () => on.over(null));
    return make("li", "", choose);
  }

  function showEvidence() {
    if (!on.verify) return evidence.replaceChildren();
    verify.textContent = state?.running ? "Stop" : state ? "Verify again" : "Verify: hide each region for real";
    verify.disabled = !run.id;
    if (!state) return evidence.replaceChildren(verify);
    const bar = set(make("progress"), {max: state.total || 1, value: state.actual.size, "aria-label": "Regions hidden so far"});
    const words = make("p", "agreement");
    if (state.message) words.append(make("b", "failed", state.message));
    else if (state.waiting) words.append("Waiting until no question is being answered …");
    else {
      const agreement = state.agreement ?? null;
      words.append(make("b", "", agreement === null ? "…" : agreement.toFixed(2)), " rank agreement of predicted and actual, ",
        state.running ? `${state.actual.size} of ${several(state.total || run.regions.length, "region")}` : several(state.actual.size, "region"));
    }
    const pictures = make("div", "stills");
    if (state.actual.size) {
      const measured = [...state.actual.keys()], strongest = best(k => span.effects[k]);
      function best(value) { return largest(measured.map(value)) || 1; }
      const actual = run.regions.map((_, k) => state.actual.get(k) ?? 0), predicted = run.regions.map((_, k) => state.actual.has(k) ? span.effects[k] : 0);
      const both = run.unit === "attention" ? [strongest, best(k => state.actual.get(k))] : Array(2).fill(Math.max(run.floor, strongest, best(k => state.actual.get(k))));
      run.images.forEach((image, i) => {
        const labels = run.start.regions[i];
        pictures.append(still(image, labels, predicted, both[0], run.unit === "attention" ? "Attention" : "Predicted"), still(image, labels, actual, both[1], "Actual"));
      });
    }
    evidence.replaceChildren(verify, ...(state.running ? [bar] : []), words, pictures);
  }

  function mark(chosen) {
    for (const choose of list.querySelectorAll("[data-region]")) {
      const on = chosen.has(Number(choose.dataset.region));
      choose.classList.toggle("on", on);
      set(choose, {"aria-pressed": String(on)});
    }
  }
  return {element, show, mark};
}
