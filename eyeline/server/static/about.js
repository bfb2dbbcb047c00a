// What the shown span rests on: its strongest regions with their intervals, and beside them, once asked for, what
// hiding each region for real does.

import {button, make, set, term} from "./dom.js";
import {chips} from "./links.js";
import {still} from "./pictures.js";
import {comesFrom, goesInto, intervals, largest, ranked, resting, sum, values} from "./run.js";
import {MEANINGS, RESTING, UNGROUNDED, amount, chance, duration, plain, several, signed, withUnit} from "./words.js";

const FEW = 5;
const SMALL = .05; // nats; an order of effects that are all smaller says little

/** `on.over(region or null)`, `on.pick(region, beside others)`, `on.choose(regions)`; `on.verify(span)` and `on.stop()` where ablation can be asked for;
 * `on.go(number)` to another span and `on.back()` to the answer. */
export function createAbout(on) {
  const element = make("section", "about"), title = make("h2"), noun = term("Span", MEANINGS.span), count = make("span"), how = make("span"), measure = make("p", "measure");
  const list = make("ol", "strongest"), more = button("", "more", () => { all = !all; redraw(); });
  const sets = make("div", "sets"), flows = make("div", "flows"), back = button("Back to the answer", "pill", () => on.back()), facts = make("p", "facts"), evidence = make("div", "evidence"), stills = make("div", "stills");
  const verify = button("", "action", () => (state?.running ? on.stop() : on.verify(span)));
  const bar = set(make("progress"), {"aria-label": "Regions hidden so far"}), words = make("p", "agreement");
  element.setAttribute("aria-label", "What the span rests on");
  title.append(noun, count, how);
  evidence.append(verify, bar, words);
  element.append(make("div", "heading", title, measure), back, evidence, list, more, flows, sets, facts, stills);
  let run = null, span = null, state = null, all = false;

  function show(newRun, newSpan, chosen) {
    if (newSpan !== span) all = false;
    [run, span, state] = [newRun, newSpan, newSpan?.verified ?? null];
    redraw();
    mark(chosen);
  }

  function redraw() {
    const chances = span?.unit === "chance";
    noun.hidden = !span || span.words || chances;
    evidence.hidden = !span || !on.verify || span.words || chances;
    back.hidden = !span || chances || !run.rests;
    flows.replaceChildren(...(span && run.over && !span.words && !chances ? [...chips(run, "from", comesFrom(run, span), on.go), ...chips(run, "into", goesInto(run, span), on.go)] : []));
    if (!span) {
      count.textContent = run?.over ? "No span was attributed in this run." : "Waiting for the first span";
      for (const part of [list, sets, stills]) part.replaceChildren();
      for (const part of [measure, facts, how]) fill(part, []);
      more.hidden = true;
      return;
    }
    const attention = run.unit === "attention", says = resting(span, span.unit);
    count.textContent = chances ? "The answer " : `${span.words ? `“${span.text}”` : ` ${span.index}`} `;
    fill(how, [[says, RESTING[says]]]);
    fill(measure, chances ? [["chances with that part hidden before the model thought", MEANINGS.chance]] : attention ? [["attention, not effect", MEANINGS.attention]]
      : [span.contributions ? ["contribution", MEANINGS.contribution] : ["effect", MEANINGS.effect], ["in nats", MEANINGS.nats],
        ...state?.actual.size ? [["predicted alone", MEANINGS.effect], ["actual", MEANINGS.actual]] : [intervals(span) && ["[90 % interval]", MEANINGS.interval]]]);
    const order = ranked(span), shown = all ? order : order.slice(0, FEW);
    const actual = k => state?.actual.get(k);
    const bounds = shown.flatMap(k => [values(span)[k], actual(k) ?? 0, ...(intervals(span)?.[k] ?? [])]);
    const low = Math.min(0, ...bounds), high = chances ? 1 : Math.max(run.floor, ...bounds), at = x => (x - low) / (high - low) * 100;
    list.classList.toggle("pale", span.paleness < 1);
    list.replaceChildren(...shown.map(k => row(k, at, actual(k))));
    more.hidden = order.length <= FEW;
    more.textContent = all ? "Fewer" : `All ${order.length} regions`;
    set(more, {"aria-expanded": String(all)});
    showSets();
    fill(facts, chances ? [[`without the whole image ${chance(span.whole_image, span.about)}`, MEANINGS.without]] : [
      span.whole_image !== null && [`whole image ${withUnit(span.whole_image, run.unit)}`, MEANINGS.whole],
      !span.words && [`log p ${signed(span.log_prob)}`, MEANINGS.log],
      [`spread over ${plain(span.spread)} regions`, MEANINGS.spread],
      !span.words && [`tokens ${span.start}–${span.end - 1}`],
      !span.words && [`attributed in ${duration(span.latency_s)}`, MEANINGS.latency],
      span.grounded === false && ["not grounded", UNGROUNDED],
      span.cut && ["cut at the longest span length"],
    ]);
    showEvidence();
  }

  /** Sets of regions to light up: those that are enough for the text, and those without which it breaks. */
  function showSets() {
    const {whole_image: whole, evidence: enough, breaks} = span, strong = span.unit !== "chance" && whole !== null && whole >= run.floor;
    const breaking = breaks?.slice(0, 1 + breaks.findIndex(([, fall]) => fall >= whole / 2)) ?? [];
    const choices = [[enough, "Enough for it", MEANINGS.enough], [breaking, "Breaks it", MEANINGS.breaks]];
    sets.replaceChildren(...choices.filter(([list]) => strong && list?.length).map(([list, name, meaning]) => {
      const choose = button(`${name}: ${several(list.length, "region")}`, "pill", () => on.choose(list.map(([k]) => k)));
      return set(choose, {title: meaning});
    }));
  }

  /** Words, each with its meaning; left alone where nothing changes, so that a meaning that is being read stays. */
  function fill(part, lines) {
    const told = lines.filter(Boolean), stamp = told.map(([word]) => word).join("|");
    if (part.stamp === stamp) return;
    part.stamp = stamp;
    part.replaceChildren(...told.map(([word, meaning]) => meaning ? term(word, meaning) : make("span", "", word)));
  }

  function row(k, at, actual) {
    const value = values(span)[k], ends = intervals(span)?.[k], plot = make("span", "plot");
    const part = (name, from, to) => {
      const piece = make("i", name);
      piece.style.left = `${at(from)}%`;
      if (to !== undefined) piece.style.right = `${100 - at(to)}%`;
      plot.append(piece);
    };
    part(value < 0 ? "bar negative" : "bar", Math.min(0, value), Math.max(0, value));
    if (actual !== undefined && Number(plain(actual))) part("actual", Math.min(0, actual), Math.max(0, actual));
    part("zero", 0);
    if (ends) part("interval", ...ends);
    set(plot, {"aria-hidden": "true"});
    const number = make("span", "number", `${amount(value, span.unit)} `);
    if (ends && actual === undefined) number.append(make("small", "", `[${signed(ends[0])}, ${signed(ends[1])}]`));
    // on a line of its own: beside a name there is no room for three numbers
    const measured = actual === undefined ? [] : [make("b", "measured", `${span.contributions ? `alone ${signed(span.effects[k])}, ` : ""}actual ${signed(actual)}`)];
    const choose = button("", "", event => on.pick(k, event.shiftKey || event.ctrlKey || event.metaKey));
    choose.append(make("span", "place", make("em", "", String(k)), run.places[k]), plot, number, ...measured);
    choose.dataset.region = k;
    choose.addEventListener("pointerenter", () => on.over(k));
    choose.addEventListener("pointerleave", () => on.over(null));
    choose.addEventListener("focus", () => on.over(k));
    choose.addEventListener("blur", () => on.over(null));
    return make("li", "", choose);
  }

  function showEvidence() {
    verify.textContent = state?.running ? "Stop" : state ? "Verify again" : "Verify";
    verify.disabled = !run.id;
    bar.hidden = !state?.running;
    set(bar, {max: state?.total || 1, value: state?.actual.size ?? 0});
    if (!state) fill(words, [["hides each region for real"]]);
    else if (state.message) fill(words, [[state.message]]);
    else if (state.waiting) fill(words, [["Waiting until no question is being answered …"]]);
    else {
      const measured = [...state.actual], small = !state.running && measured.length > 0 && run.unit !== "attention" &&
        measured.every(([k, x]) => Math.max(Math.abs(x), Math.abs(span.effects[k])) < SMALL);
      const number = state.agreement === null ? "…" : signed(state.agreement);
      fill(words, [[`rank agreement ${number}`, MEANINGS.agreement],
        state.running ? [`${measured.length} of ${several(state.total || run.regions.length, "region")}`]
          : run.unit === "attention" ? [`predicted and actual of ${several(measured.length, "region")}`] : [addedUp(measured), MEANINGS.addedUp],
        small && [`(none reaches ${plain(SMALL)} nats: their order says little)`]]);
    }
    words.classList.toggle("failed", Boolean(state?.message));
    showStills();
  }

  /** What was predicted and what hiding each region did, beside each other, in one scale. */
  function showStills() {
    const measured = [...state?.actual.keys() ?? []], attention = run.unit === "attention";
    const most = value => largest(measured.map(value)) || 1;
    if (!measured.length) return stills.replaceChildren();
    const hidden = k => state.actual.get(k), alone = k => span.effects[k], ofAll = value => run.regions.map((_, k) => state.actual.has(k) ? value(k) : 0);
    const scales = attention ? [most(alone), most(hidden)] : Array(2).fill(Math.max(run.full, most(alone), most(hidden)));
    stills.replaceChildren(...run.images.flatMap((image, i) => {
      const labels = run.start.regions[i];
      return [still(image, labels, ofAll(alone), scales[0], attention ? "Attention" : "Predicted"), still(image, labels, ofAll(hidden), scales[1], "Actual")];
    }));
  }

  /** What was predicted and what measured of the regions that were hidden, in nats. */
  function addedUp(measured) {
    const [predicted, actual] = [([k]) => span.effects[k], ([, x]) => x].map(value => signed(sum(measured.map(value))));
    return `added up over ${several(measured.length, "region")}: predicted ${predicted}, actual ${actual} nats`;
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
