// The strip at the foot: visual reliance over time, and the gaze as a film that can be scrubbed and replayed.

import {button, make, set, term} from "./dom.js";
import {MEANINGS, amount} from "./words.js";

const TOKEN_MS = 45; // of a replayed span, for each of its tokens
const SHORTEST_MS = 450, LONGEST_MS = 2200;

/** `on.pick(number)` when a span is chosen here, `on.over(number or null)` under the pointer, `on.play(playing)`. */
export function createFilm(on) {
  const element = make("div", "dock"), strip = make("div", "strip"), label = make("span", "label"), now = make("span", "now");
  const play = button("", "play", () => (timer ? stop() : start()));
  const newest = button("Newest", "pill", () => on.newest());
  newest.hidden = true;
  element.append(make("div", "", play, make("div", "reel", make("p", "", label, now), strip), newest));
  set(strip, {role: "slider", tabindex: "0", "aria-label": "Span shown", "aria-valuemin": "1"});
  let timer = 0, spans = [], shown = 0, paused = true;
  sign();

  function sign() {
    set(play, {"aria-label": timer ? "Pause" : "Replay the gaze", title: timer ? "Pause" : "Replay the gaze"});
    play.classList.toggle("playing", Boolean(timer));
  }
  function start() {
    if (!spans.length) return;
    paused = false;
    on.play(true);
    step(shown >= spans.length - 1 ? 0 : shown);
  }
  function step(number) {
    on.pick(number, true);
    const {start: first, end} = spans[number], last = number === spans.length - 1;
    timer = setTimeout(() => (last ? stop() : step(number + 1)), Math.max(SHORTEST_MS, Math.min(LONGEST_MS, (end - first) * TOKEN_MS)));
    sign();
  }
  function stop() {
    clearTimeout(timer);
    timer = 0;
    if (!paused) { paused = true; on.play(false); }
    sign();
  }

  function clear() {
    stop();
    spans = [];
    strip.replaceChildren();
    now.textContent = "";
  }
  function add(span) {
    const bar = make("span", span.channel);
    if (span.channel === "answer" && spans.length && spans.at(-1).channel !== "answer") bar.classList.add("first");
    spans.push(span);
    strip.append(bar);
    strip.classList.toggle("dense", spans.length > 90);
    return bar;
  }
  function update(run, number, words) {
    shown = number;
    name(run.unit);
    now.textContent = words;
    const span = run.spans[number];
    set(strip, {"aria-valuemax": String(run.spans.length || 1), "aria-valuenow": String(number + 1),
      "aria-valuetext": span ? `Span ${number + 1} of ${run.spans.length}, ${amount(span.visual, run.unit)}: ${span.text.trim()}` : "no span yet"});
  }

  let named = null;
  function name(unit) {
    if (named === unit) return;
    named = unit;
    label.replaceChildren(unit === "attention" ? term("Strongest region’s share", MEANINGS.strongest) : term("Reliance on the image", MEANINGS.reliance));
  }

  const under = event => spans.findIndex(span => event.clientX <= span.bar.getBoundingClientRect().right);
  strip.addEventListener("pointerdown", event => {
    strip.setPointerCapture(event.pointerId);
    stop();
    if (under(event) >= 0) on.pick(under(event));
  });
  strip.addEventListener("pointermove", event => {
    const number = under(event);
    if (number < 0 || timer) return;
    if (event.buttons) on.pick(number); else if (event.pointerType === "mouse") on.over(number);
  });
  strip.addEventListener("pointerleave", () => on.over(null));
  return {element, clear, add, update, stop, offerNewest: offered => { newest.hidden = !offered; }, get playing() { return Boolean(timer); }};
}
