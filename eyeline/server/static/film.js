// The strip at the foot: visual reliance over time, and the run as a film that can be scrubbed and played at reading pace.

import {button, make, set, term} from "./dom.js";
import {BEAT_MS, readingMs} from "./pace.js";
import {MEANINGS, amount} from "./words.js";

/** `on.pick(number)` when a span is chosen here, `on.over(number or null)` under the pointer, `on.play(playing, over)`. */
export function createFilm(on) {
  const element = make("div", "dock"), strip = make("div", "strip"), label = make("span", "label"), now = make("span", "now");
  const play = button("", "play", () => (timer ? stop() : start()));
  const newest = button("Newest", "pill", () => on.newest());
  newest.hidden = true;
  element.append(make("div", "", play, make("div", "reel", make("p", "", label, now), strip), newest));
  set(strip, {role: "slider", tabindex: "0", "aria-label": "Span shown", "aria-valuemin": "1"});
  let timer = 0, spans = [], shown = 0, held = false, paused = true;
  sign();

  function sign() {
    set(play, {"aria-label": timer ? "Pause" : "Play", title: timer ? "Pause" : "Play at reading pace"});
    play.classList.toggle("playing", Boolean(timer));
  }
  function start() {
    if (!spans.length) return;
    paused = false;
    on.play(true);
    step(held && shown < spans.length - 1 ? shown : 0); // from a span that was chosen
  }
  function step(number) {
    on.pick(number, true);
    const last = number === spans.length - 1;
    timer = setTimeout(() => (last ? stop(true) : step(number + 1)), readingMs(spans[number].text) + BEAT_MS);
    sign();
  }
  function stop(over = false) {
    clearTimeout(timer);
    timer = 0;
    if (!paused) { paused = true; on.play(false, over); }
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
      "aria-valuetext": span ? `Span ${span.index}, ${amount(span.visual, run.unit)}: ${span.text.trim()}` : "no span yet"});
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
  return {element, clear, add, update, stop, setState: (live, pinned) => { held = pinned; newest.hidden = !(live && pinned); play.disabled = live; }, get playing() { return Boolean(timer); }};
}
