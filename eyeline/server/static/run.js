// One run as its events come in, and what is derived from each span: how visual it is, and how concentrated.

import {POSSIBLE, RATHER, placeRegions, wouldChange} from "./words.js";

/** The number of each region that the heat, the lists and the charts show for a span, and its interval or null. */
export const values = span => span.contributions ?? span.effects;
export const intervals = span => span.contributions ? span.contribution_interval : span.interval;

export const FLOORS = {nats: .5, relative: .5, attention: .1}; // a span with less hardly rests on the image
// A span that rests on the image with this has the full colour where it rests on it most, with less a paler one; `FULL` in report.py is the same.
export const FULL = {nats: 2, relative: 2, attention: .1};
// What is marked as not grounded has this share of the colours, so that its map is no louder than the mark; `PALE` in report.py is the same.
const PALE = .25;
export const TRAIN = ["eyeline collect --model {model} --data DIR --out RUN", "eyeline fit RUN --out EST"];

export const sum = values => values.reduce((a, b) => a + b, 0);
export const largest = values => values.reduce((a, b) => Math.max(a, Math.abs(b)), 0);

/** `images`: for each its `url`, and `dark` where it is known. */
export function newRun(prompt, images) {
  return {
    prompt, images, start: null, unit: "nats", floor: FLOORS.nats, full: FULL.nats, places: [], regions: [], spans: [], done: null, answer: "",
    text: "", words: null, rests: null, mostVisual: FLOORS.nats, commonScale: FULL.nats, restsOn: [], negative: false, hasPatches: false, claims: [],
  };
}

/** Adds one event; returns the span it made, if any. */
export function take(run, event) {
  if (event.event === "start") {
    run.start = event;
    run.unit = event.unit;
    run.floor = FLOORS[event.unit];
    run.full = FULL[event.unit];
    run.places = placeRegions(event.regions);
    run.regions = run.places.map((place, k) => `${k} ${place}`); // many lie in one place: the number tells them apart
    run.mostVisual = event.unit === "attention" ? 0 : run.floor;
    run.commonScale = run.full;
    run.restsOn = run.regions.map(() => run.floor);
  } else if (event.event === "text") {
    run.text += event.text;
    if (event.channel === "answer") run.answer += event.text;
  } else if (event.event === "done") {
    run.done = event;
    run.rests = ofAnswer(run, event);
  } else if (event.event === "span" && run.start) {
    const last = run.spans.at(-1), span = derive(run, {...event, number: run.spans.length});
    const shown = values(span);
    span.at = Math.max(0, run.text.indexOf(event.text, last ? last.at + last.text.length : 0)); // in characters of all text
    run.commonScale = run.spans.length ? Math.max(run.commonScale, span.scale) : span.scale;
    run.mostVisual = Math.max(run.mostVisual, span.visual);
    run.negative ||= shown.some(x => x < 0);
    run.hasPatches ||= Boolean(span.patches);
    shown.forEach((x, k) => { run.restsOn[k] = Math.max(run.restsOn[k], x); });
    run.spans.push(span);
    return span;
  }
  return null;
}

/** What the answer rests on through the thinking, as a span in chances; null where nothing is known of it. */
function ofAnswer(run, done) {
  const spans = run.spans.filter(span => span.channel === "answer"), told = done.rests_on;
  if (!told || !spans.length) return null;
  return derive(run, {...spans[0], unit: "chance", about: run.unit === "relative" ? "~" : "", text: done.answer, effects: told.changes,
    grounded: spans.every(span => span.grounded === false) ? false : null, interval: null, contributions: null, patches: null,
    whole_image: told.whole, sources: told.sources, spans});
}

/** The earlier spans that a span, or the answer, comes from, as [number, nats]: a few, none that is next to nothing beside the first. */
export function comesFrom(run, {sources}) {
  const found = (sources ?? []).map(([index, nats]) => [run.spans.findIndex(span => span.index === index), nats]);
  const enough = Math.max(FLOORS.nats, SLIGHT * (sources?.[0]?.[1] ?? 0));
  return found.filter(([number, nats]) => number >= 0 && nats >= enough).slice(0, SOURCES);
}

/** The later spans that come from a span, as [number, nats]; the answer is one, at its first span. */
export function goesInto(run, {number}) {
  const answer = run.rests?.spans ?? [], later = run.spans.filter(span => span.number > number && answer.indexOf(span) < 1);
  return later.flatMap(span => comesFrom(run, span === answer[0] ? run.rests : span).filter(([from]) => from === number).map(([, nats]) => [span.number, nats]));
}
const SOURCES = 5, SLIGHT = .1; // spans; a share of the largest

/** A span with what is drawn of it: its heat, how visual it is, its scale, its share of the colours and how widely it is spread. */
export function derive(run, span) {
  const shown = values(span);
  span.unit ??= run.unit;
  span.heat = span.patches ?? run.start.regions.map(labels => labels.map(row => row.map(k => shown[k])));
  span.visual = run.unit === "attention" ? Math.max(0, ...shown) : Math.max(0, span.whole_image ?? sum(shown.filter(x => x > 0)));
  span.scale = span.unit === "chance" ? 1 : strongestCell(run, span) * Math.max(1, run.full / (most(span) || 1)) || run.full;
  span.paleness = span.grounded === false ? PALE : 1;
  span.spread = spread(shown);
  return span;
}

/** The largest number of a cell of the region with most: a small region's cells may hold more, and have the full colour too. */
function strongestCell(run, span) {
  const [first] = ranked(span), labels = run.start.regions.flat(2);
  return largest(span.heat.flat(2).filter((_, cell) => labels[cell] === first));
}

/** Over how many regions an effect is spread: e to the entropy of its supporting parts; 0 where there is none. */
function spread(effects) {
  const parts = effects.filter(x => x > 0), total = sum(parts);
  return total > 0 ? Math.exp(-sum(parts.map(x => x / total * Math.log(x / total)))) : 0;
}

/** Regions of a span from the strongest value, of whatever sign. */
export const ranked = span => values(span).map((_, k) => k).sort((a, b) => Math.abs(values(span)[b]) - Math.abs(values(span)[a]));

/** Regions of a span from the strongest that are worth naming: not far below the strongest one, nor next to nothing. */
export const telling = span => ranked(span).filter(k => Math.abs(values(span)[k]) >= Math.max(.1 * largest(values(span)), LEAST[span.unit] ?? NOTHING));

/** Regions without which the answer rather changes than not, from the likeliest; `changing` in boxes.py finds the same. */
export const changing = span => ranked(span).filter(k => values(span)[k] >= RATHER);

const NOTHING = .05, ALONE = .1; // nats; a share of what hiding the whole image does
const LEAST = {attention: 0, chance: POSSIBLE}; // of a number that is worth naming

/** The largest that hiding does to a span: the whole image, or a region, alone or beside others. */
const most = span => largest([...values(span), ...span.effects, span.whole_image ?? 0]);

/** Whether a span hardly rests on the image: no place of it then gets a number by itself. */
export const hardly = (span, unit) => unit !== "attention" && unit !== "chance" && most(span) < FLOORS[unit];

/** How a span rests on the image, in words before its regions; `resting` in report.py says the same. */
export function resting(span, unit) {
  if (unit === "attention") return "attends to";
  if (unit === "chance") return howItChanges(span);
  if (most(span) < NOTHING) return "follows from the text before it";
  if (hardly(span, unit)) return "hardly rests on the image";
  const whole = span.whole_image ?? 0;
  if (-whole >= FLOORS[unit] && Math.max(...values(span)) < FLOORS[unit]) return "is likelier without the image";
  return Math.max(...span.effects) < ALONE * whole ? "rests on several regions together" : "rests on";
}

function howItChanges(span) {
  if (!changing(span).length && span.whole_image >= RATHER) return `${wouldChange(span.whole_image)} without the whole image`;
  const likely = Math.max(0, ...values(span));
  return likely >= POSSIBLE ? `${wouldChange(likely)} without` : wouldChange(likely);
}
