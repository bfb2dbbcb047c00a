// Where a finished run's answer comes from: thin lines from it to sentences and on to the image, and sentences' numbers.

import {button, draw, make, set, term} from "./dom.js";
import {FLOORS, comesFrom, goesInto, telling, values} from "./run.js";
import {MEANINGS, plain} from "./words.js";

const ROOM = 9; // pixels from a sentence's left edge to where its lines begin

/** Lines over `within`, where `image` and `text` stand; `regionAt(k)` tells where in the window a region is. */
export function createLinks(within, {regionAt, image, text}) {
  const behind = draw("svg", {class: "links", "aria-hidden": "true"}), above = draw("svg", {class: "links to-image", "aria-hidden": "true"});
  let run = null, span = null;
  within.append(behind, above);
  addEventListener("scroll", () => { if (run) place(); }, {passive: true});

  /** `shown` is a span, or the answer as a whole. */
  function update(newRun, shown) {
    [run, span] = [newRun.over ? newRun : null, shown];
    mark(newRun);
    place();
  }

  /** Beside sentences that the shown one takes from or gives to stand their numbers. */
  function mark({spans}) {
    const found = new Map(), one = run && span && !span.words ? span : null;
    if (one) {
      for (const [number] of comesFrom(run, one)) found.set(number, "from");
      for (const [number] of goesInto(run, one)) found.set(number, "into");
      if (found.size && one.unit !== "chance") found.set(one.number, "here");
    }
    for (const {element, number} of spans) set(element, {"data-mark": found.has(number) && String(run.spans[number].index), "data-link": found.get(number) ?? null});
  }

  function place() {
    const {left, top} = within.getBoundingClientRect();
    const box = element => { // in pixels from the corner of `within`; null where it is folded away
      const [first] = element.getClientRects();
      return first ? {left: first.left - left, right: first.right - left, top: first.top - top, bottom: first.bottom - top} : null;
    };
    behind.replaceChildren(...toSentences(box));
    const [k] = run && ["nats", "relative"].includes(span?.unit) && !span.words ? telling(span) : [], at = k !== undefined && values(span)[k] >= FLOORS.nats ? regionAt(k) : null;
    const from = at && box(span.element);
    above.replaceChildren(...from ? toRegion(from, {x: at.x - left, y: at.y - top}, box(image), box(text)) : []);
  }

  function toSentences(box) {
    const answer = run?.rests && box(run.rests.spans[0].element), sources = answer ? comesFrom(run, run.rests) : [];
    return sources.flatMap(([number, nats]) => {
      const at = box(run.spans[number].element), middle = at && (at.bottom + answer.top) / 2, x = answer.left + ROOM;
      if (!at) return [];
      const path = Math.abs(at.left - answer.left) < ROOM // beside the text, not along the start of its lines
        ? `M${answer.left} ${answer.top + ROOM}C${answer.left - 2 * ROOM} ${answer.top} ${at.left - 2 * ROOM} ${at.bottom} ${at.left} ${at.top + ROOM}`
        : `M${x} ${answer.top}C${x} ${middle} ${at.left + ROOM} ${middle} ${at.left + ROOM} ${at.bottom}`;
      const on = span === run.spans[number] || span === run.rests;
      return [draw("path", {d: path, "stroke-width": .8 + 1.4 * nats / sources[0][1], "stroke-opacity": Math.sqrt(nats / sources[0][1]), class: on ? "on" : ""})];
    });
  }

  /** From a sentence to the region that it rests on most: strong at both ends, pale across the numbers between them. */
  function toRegion(from, to, picture, words) {
    const end = draw("circle", {cx: to.x, cy: to.y, r: 4}), line = (d, ...names) => names.map(name => draw("path", {d, class: name}));
    if (picture.right > words.left) { // the image above the text, which goes under it
      const x = from.left + ROOM, middle = (from.top + to.y) / 2;
      return from.top < picture.bottom ? [] : [...line(`M${x} ${from.top}C${x} ${middle} ${to.x} ${middle} ${to.x} ${to.y}`, "under", "on"), end];
    }
    const y = from.top - 1, near = words.left - ROOM, far = picture.right + ROOM, middle = (near + far) / 2; // y: between two lines of text
    const out = Math.min(to.y, picture.bottom);
    return [
      ...line(`M${from.left} ${y}H${near}`, "on"),
      ...line(`M${near} ${y}C${middle} ${y} ${middle} ${out} ${far} ${out}`, ""),
      ...line(`M${far} ${out}L${to.x} ${to.y}`, "under", "on"), end,
    ];
  }

  return {update};
}

/** A row of numbered chips, one for each sentence of `list` ([number, nats]); nothing where there is none. */
export function chips(run, kind, list, pick) {
  if (!list.length) return [];
  const [word, meaning] = {from: ["comes from", MEANINGS.from], into: ["goes into", MEANINGS.into]}[kind];
  const row = make("div", `flow ${kind}`, make("p", "", term(word, meaning)));
  row.append(...list.map(([number, nats]) => {
    const span = run.spans[number], whole = run.rests?.spans[0] === span, text = (whole ? run.rests : span).text.trim();
    const chip = button("", "chip", () => pick(number));
    chip.append(make("em", "", String(span.index)), make("span", "", whole ? `Answer: ${text}` : text), make("small", "", `${plain(nats)} nats`));
    chip.dataset.span = number;
    return set(chip, {title: text});
  }));
  return [row];
}
