// The text as it is written, cut into spans as they are attributed. A span carries a small picture of where it looked.

import {make, set} from "./dom.js";
import {largest} from "./run.js";
import {UNGROUNDED, withUnit} from "./words.js";

const GLYPH = 7; // cells along the longer side of a span's small picture
const HEADINGS = {thinking: "Thinking", answer: "Answer"};

/** `on.over(number)`, `on.leave()` and `on.pick(number)` hear of the pointer on a span; `on.words(text, characters, number)` of a selection. */
export function createTrace(on) {
  const element = make("div", "trace");
  let channels = {}, current = null;

  function clear() {
    channels = {};
    current = null;
    element.replaceChildren();
  }

  function channel(name) {
    if (channels[name]) return channels[name];
    const section = make("section", name), text = make("div", "text"), tail = document.createTextNode("");
    const folder = make("details"), title = make("summary", "", make("h2", "", HEADINGS[name]));
    folder.open = true;
    set(text, {role: "group", "aria-label": `${HEADINGS[name]}: spans`});
    text.append(tail);
    folder.append(title, text);
    section.append(folder);
    if (name === "answer") element.append(section); else element.prepend(section);
    channels[name] = {section, folder, text, tail, pending: "", title, started: false};
    return channels[name];
  }

  /** `follow`: where the end of the text is on the screen, it stays there. */
  function write({channel: name, text}, follow) {
    const seen = !current || hidden(current) <= 0, part = channel(name);
    part.pending += text;
    current = part;
    // a channel begins where its text does; what is not yet a span stands at the end
    part.tail.data = part.started ? part.pending : part.pending.trimStart();
    if (!part.started && part.pending.trim()) part.text.classList.toggle("code", isCode(part.pending));
    for (const other of Object.values(channels)) other.section.classList.toggle("writing", other === part);
    if (follow && seen) scrollBy(0, Math.max(0, hidden(part)));
  }

  /** By how much the end of a part's text lies below what is seen, in pixels. */
  const hidden = ({text}) => text.getBoundingClientRect().bottom + parseFloat(getComputedStyle(document.documentElement).scrollPaddingBottom) - innerHeight;

  function addSpan(span) {
    const part = channel(span.channel), found = Math.max(0, part.pending.indexOf(span.text));
    const before = part.pending.slice(0, found), string = part.started || before.trim() ? span.text : span.text.trimStart();
    part.pending = part.pending.slice(found + span.text.length);
    const body = string.trim(), lead = string.length - string.trimStart().length, glyph = make("canvas", "glyph");
    const shown = make("span", "span", glyph, body);
    shown.id = `span-${span.number}`;
    Object.assign(shown.dataset, {index: span.number, at: span.at + span.text.length - span.text.trimStart().length});
    shown.tabIndex = -1;
    set(glyph, {"aria-hidden": "true"});
    set(shown, {role: "button", "aria-pressed": "false"});
    if (span.grounded === false) Object.assign(shown, {title: `Not grounded. ${UNGROUNDED}`}).classList.add("ungrounded");
    part.tail.before(part.started ? before : before.trimStart(), string.slice(0, lead), shown, string.slice(lead + body.length));
    part.tail.data = part.pending;
    part.started = true;
    if (span.number < 3 || part.text.classList.contains("code") === false) {
      if (isCode(part.text.textContent.slice(0, 400))) part.text.classList.add("code");
    }
    return {element: shown, glyph};
  }

  function lose(message) {
    const part = current ?? channel("thinking");
    const note = make("span", "lost", make("b", "", "Lost: "), message);
    part.tail.before(note);
  }

  function end(facts) {
    for (const {section} of Object.values(channels)) section.classList.remove("writing");
    element.append(make("p", "facts end", ...facts.map(fact => make("span", "", fact))));
  }

  /** What stands below a channel's text. */
  function below(name, ...children) {
    channels[name]?.folder.append(...children);
  }

  const spanAt = event => event.target.closest?.(".span");
  element.addEventListener("pointermove", event => { // not pointerover: text may come under a pointer that rests
    const span = spanAt(event);
    if (span && event.pointerType === "mouse") on.over(Number(span.dataset.index));
  });
  element.addEventListener("pointerleave", () => on.leave());
  element.addEventListener("click", event => { if (spanAt(event) && getSelection().isCollapsed) on.pick(Number(spanAt(event).dataset.index)); });
  element.addEventListener("pointerup", () => {
    const selected = getSelection();
    if (!on.words || selected.isCollapsed) return;
    const {startContainer, startOffset, endContainer, endOffset} = selected.getRangeAt(0);
    const from = place(startContainer, startOffset), to = place(endContainer, endOffset);
    if (from && to && to.at > from.at) on.words(selected.toString().trim(), [from.at, to.at], from.number);
  });

  /** Where in all text a place in a span is; null outside of spans. */
  function place(node, offset) {
    const shown = node.nodeType === Node.TEXT_NODE && element.contains(node) ? node.parentElement.closest(".span") : null;
    return shown && {number: Number(shown.dataset.index), at: Number(shown.dataset.at) + offset};
  }

  return {element, clear, write, addSpan, lose, below, end, open: name => { if (channels[name]) channels[name].folder.open = true; }};
}

const isCode = text => /^\s*(<[a-z!]|\x60{3}|import |from \w+ import|\w+\s*=\s*["\d([])/.test(text) || /\n {2,}\S/.test(text);

/** A span's small picture: where it looked in the image it rests on most, as strong as it is visual. */
export function drawGlyph(canvas, span, run) {
  const heat = span.heat.reduce((a, b) => largest(b.flat()) > largest(a.flat()) ? b : a);
  const rows = heat.length, cols = heat[0].length, shrink = Math.max(1, Math.max(rows, cols) / GLYPH);
  const height = Math.max(1, Math.round(rows / shrink)), width = Math.max(1, Math.round(cols / shrink));
  const peaks = Array.from({length: height}, () => new Array(width).fill(0));
  heat.forEach((line, y) => line.forEach((x, i) => {
    const at = peaks[Math.min(height - 1, Math.floor(y / shrink))], col = Math.min(width - 1, Math.floor(i / shrink));
    if (Math.abs(x) > Math.abs(at[col])) at[col] = x;
  }));
  Object.assign(canvas, {width, height});
  canvas.style.aspectRatio = `${width} / ${height}`;
  const strength = Math.min(1, span.visual / Math.max(run.full, run.mostVisual)) ** .5 * span.paleness, top = largest(peaks.flat()) || 1;
  const context = canvas.getContext("2d"), style = getComputedStyle(canvas);
  const colours = {up: style.getPropertyValue("--up"), down: style.getPropertyValue("--down")};
  peaks.forEach((line, y) => line.forEach((x, i) => {
    context.globalAlpha = Math.min(1, (Math.abs(x) / top) ** .6 * (.15 + .85 * strength));
    context.fillStyle = x < 0 ? colours.down : colours.up;
    context.fillRect(i, y, 1, 1);
  }));
}

export const describe = (span, run) =>
  run.unit === "attention" ? `strongest region ${withUnit(span.visual, run.unit)}` : `rests on the image with ${withUnit(span.visual, run.unit)}`;
