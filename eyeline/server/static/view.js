// The view of one run, live or finished: the image with its heat, the trace, what a span rests on, the whole at a glance.
// The page, the notebook and the report all show this one; they differ in where events come from.

import {createAbout} from "./about.js";
import {DARK, LIGHT, css} from "./colour.js";
import {button, make, set, term, toggle} from "./dom.js";
import {createFilm} from "./film.js";
import {createGlance} from "./glance.js";
import {chips, createLinks} from "./links.js";
import {createPictures} from "./pictures.js";
import {TRAIN, changing, comesFrom, derive, hardly, largest, newRun, resting, take, telling, values} from "./run.js";
import {createTrace, describe, drawGlyph} from "./trace.js";
import {LIKELY, MEANINGS, amount, answerRests, chance, noneAlone, percent, plain, several, signed, withUnit} from "./words.js";

const TOP = 3; // regions that get a number on the image
const ENDS = {stop: "the text ended", length: "stopped at the length limit", cancelled: "stopped", error: "stopped by an error"};

/**
 * Fills `root`. `actions`, all optional: `brand` is a name to show, `verify(run, span, onEvent, signal)`, `askWithout(run, regions)`
 * and `thinkAgain(run, regions)` run the model, `head` holds elements beside the question. A run is opened with `open`, its events given to `take`.
 */
export function createView(root, actions = {}) {
  let run = newRun("", []), shown = -1, whole = false, hovered = null, pinned = false, live = false, oneScale = false, top = true, all = false;
  let order = [], region = null, chosen = new Set(), frameRequest = 0, dirty = new Set(), stopVerify = null;

  const status = set(make("p", "unseen"), {role: "status"});
  const facts = make("p", "brand"), question = make("h1"), notice = make("div", "notice"), side = make("div", "side");
  const head = make("header", "head", make("div", "", facts, question), side);
  if (actions.head) side.append(...actions.head);
  const pictures = createPictures({
    over: (k, event, figure) => { point(k); showTip(k, event, figure); },
    leave: () => { point(null); tip.remove(); },
    pick: (k, event, figure) => { choose(k, event.shiftKey || event.ctrlKey || event.metaKey); showTip(k, event, figure); },
  });
  const tip = make("div", "tip"), legend = make("div", "legend");
  const selection = make("div", "selection"), together = set(make("p", "together"), {"aria-live": "polite"});
  const about = createAbout({over: point, pick: choose, choose: chooseAll, verify: actions.verify && verify, stop: () => stopVerify?.abort(), go, back});
  const trace = createTrace({over: hover, words: actions.joint && showWords, leave: () => hover(null), pick: number => pick(number, !(pinned && shown === number))});
  const glance = createGlance({
    over: (number, k, event) => { hover(run.spans[number] ? number : null); point(k); if (k === null) tip.remove(); else showTip(k, event, glance.element); },
    pick: (number, k) => { if (run.spans[number]) pick(number, true); if (k !== null) choose(k); },
  });
  const film = createFilm({
    pick: (number, playing) => pick(number, true, playing ? "nearest" : "centre"), over: hover,
    play: (playing, over) => { root.classList.toggle("playing", playing); if (over) rest(); changed("span"); },
    newest: () => { pinned = false; pick(run.spans.length - 1, false, "nearest"); },
  });
  const extras = make("div", "extras");
  const toggles = make("div", "toggles",
    toggle("Heat", true, on => root.classList.toggle("heat-on", on)),
    set(toggle("Regions", false, pictures.toggleOutlines), {title: "Outlines of all regions, also without the pointer on the image"}),
    toggle("Top 3", true, on => { top = on; changed("span"); }),
    set(toggle("All numbers", false, on => { all = on; changed("span"); }), {title: "The number of every region"}),
    set(toggle("Same scale", false, on => { oneScale = on; changed("span"); }), {title: "One colour scale for all spans"}));
  set(toggles, {role: "group", "aria-label": "On the image"});
  const look = make("div", "look", make("div", "pictures", pictures.element, selection, make("div", "tools", legend, toggles)), about.element);
  const body = make("div", "columns", look, make("div", "reading", trace.element, extras));
  const links = createLinks(body, {regionAt: pictures.at, image: pictures.element, text: trace.element});
  root.classList.add("view", "heat-on");
  root.replaceChildren(make("div", "inside", head, notice, body, glance.element), film.element, status);

  /** Starts anew with a question and its images; `id` is that of the saved run, where there is one. */
  function open({prompt, images, claims = [], isLive = false, id = null}) {
    stopVerify?.abort();
    cancelAnimationFrame(frameRequest);
    frameRequest = 0;
    run = newRun(prompt, images);
    Object.assign(run, {id, claims});
    [shown, hovered, pinned, region, live, whole] = [-1, null, false, null, isLive, false];
    chosen = new Set();
    dirty = new Set();
    selection.replaceChildren();
    trace.clear();
    film.clear();
    extras.replaceChildren();
    selection.replaceChildren();
    notice.hidden = true;
    question.textContent = prompt;
    question.className = prompt.length > 300 ? "long" : "";
    set(question, {tabindex: prompt.length > 300 && "0"}); // it scrolls
    tell(live ? "reading the image …" : "");
    pictures.show(images);
    legend.replaceChildren();
    legend.stamp = "";
    order = [];
    root.classList.toggle("live", live);
    film.setState(live, false);
    changed("span");
  }

  function takeEvent(event) {
    const span = take(run, event);
    if (event.event === "start") begin(event);
    if (event.event === "text") trace.write(event, live && !pinned);
    if (event.event === "error") { trace.lose(event.message); status.textContent = event.message; }
    if (span) {
      const {element, glyph} = trace.addSpan(span);
      Object.assign(span, {element, glyph, bar: film.add(span)});
      if (live && !pinned && !film.playing) shown = span.number;
      changed("span");
      changed("levels");
    }
    if (event.event === "done") finish();
  }

  function begin(start) {
    const attention = start.unit === "attention";
    tell(start.model, attention ? "no estimator" : `estimator ${start.estimator}`, several(run.regions.length, "region"));
    notice.hidden = !attention && !start.notices?.length;
    notice.replaceChildren(...(start.notices ?? []).map(({message}) => make("p", "", make("b", "", "Note. "), message)));
    if (attention) {
      notice.append(make("b", "", "Attention, not effect. "), "No estimator was fitted for this model: the colours show each " +
        "region’s share of the attention to the image, which says little about what the text rests on. Train one with",
      ...TRAIN.map(line => make("code", "", line.replace("{model}", start.model))));
    }
    pictures.place(start);
    changed("span");
  }

  function tell(...words) {
    facts.replaceChildren(...(actions.brand ? [make("b", "", actions.brand)] : []), ...words.map(word => make("span", "", word)));
  }

  /** After the last event; also where it never came. */
  function finish(why = "This run was cut short: it has no end.") {
    if (!run.over) {
      run.over = true;
      const {done} = run;
      if (run.rests) {
        trace.below("answer", make("p", "rests", answerRests(named(changing(run.rests)), named(telling(run.rests)), run.rests, Math.max(0, changing(run.rests).length - TOP))), ...chips(run, "from", comesFrom(run, run.rests), go));
        run.rests.spans[0].drawnAt = null; // its picture is of the answer now
        dirty.add("levels");
      }
      const unfounded = run.spans.filter(span => span.grounded === false).length;
      trace.end((done ? [unfounded && `${several(unfounded, "sentence")} not grounded (wavy line)`, several(done.tokens, "token"), done.tokens_per_s && `${plain(done.tokens_per_s)} tokens/s`,
        done.stalled_s >= .05 && `decoding waited ${plain(done.stalled_s)} s`, ENDS[done.reason]] : [why]).filter(Boolean));
      status.textContent = done ? `Answer: ${done.answer.trim() || "none"}` : why;
    }
    live = false;
    root.classList.remove("live");
    if (!pinned) rest();
    changed("span");
    settle();
  }

  /** What is over shows its answer; the span that rests most on the image where nothing is known of the answer. */
  function rest() {
    pinned = false;
    whole = Boolean(run.rests);
    if (run.spans.length) shown = (run.rests ?? run.spans.reduce((best, span) => span.visual > best.visual ? span : best)).number;
  }
  function back() {
    hovered = run.words = null;
    rest();
    showTogether();
    changed("span");
    settle();
  }
  /** Whether a span is all of the answer, and stands for it. */
  const isAnswer = number => run.rests?.number === number && run.rests.spans.length === 1;
  /** The first of some regions of the answer, by name, with its chances to change. */
  const named = regions => regions.slice(0, TOP).map(k => [run.regions[k], run.rests.effects[k]]);
  const current = () => run.words ?? (whole ? run.rests : run.spans[hovered ?? shown]);

  // Drawing: what changed is drawn once a frame, however many events came in
  function changed(what) {
    dirty.add(what);
    frameRequest ||= requestAnimationFrame(settle);
  }
  function settle() {
    cancelAnimationFrame(frameRequest);
    frameRequest = 0;
    if (!dirty.size) return;
    const what = dirty;
    dirty = new Set();
    if (what.has("levels")) showLevels();
    showSpan();
    if (what.has("levels")) showRegions(); else if (region !== null || chosen.size) showRegions();
  }

  function showLevels() {
    for (const span of run.spans) {
      const grown = run.mostVisual !== span.drawnAt;
      if (!grown) continue;
      span.drawnAt = run.mostVisual;
      drawGlyph(span.glyph, isAnswer(span.number) ? {...run.rests, visual: run.mostVisual * largest(run.rests.effects)} : span, run);
      span.bar.style.setProperty("--level", `${span.visual / run.mostVisual * 100}%`);
      set(span.element, {"aria-description": describe(span, run)});
    }
  }

  function showSpan() {
    const number = hovered ?? shown, span = current();
    for (const other of run.spans) {
      const on = other.number === number;
      other.element.classList.toggle("on", on || (whole && run.rests.spans.includes(other)));
      other.element.classList.toggle("later", other.number > number);
      set(other.element, {"aria-current": on && "true", "aria-pressed": String(pinned && other.number === shown)});
      other.element.tabIndex = other.number === Math.max(0, shown) ? 0 : -1;
      other.bar.classList.toggle("on", on);
    }
    root.classList.toggle("lit", run.spans.length > 0);
    film.setState(live, pinned);
    about.show(run, span, marked());
    glance.update(run, number, marked());
    links.update(run, span);
    if (!run.start) return;
    const scale = span ? oneScale && span.unit !== "chance" ? run.commonScale : span.scale : run.full;
    pictures.move(span?.heat ?? run.start.regions.map(rows => rows.map(row => row.map(() => 0))), scale / (span?.paleness ?? 1), !run.spans.length || (run.hasPatches && !run.words && !whole));
    pictures.claim(run.claims.filter(({tokens}) => span && (span.unit === "chance" || (tokens[0] < span.end && span.start < tokens[1]))));
    order = span ? telling(span) : [];
    showNumbers();
    if (span) showLegend(scale, span);
    film.update(run, number, span ? inShort(span) : "");
  }

  function inShort(span) {
    const first = (span.unit === "chance" ? changing(span) : order).slice(0, 2), tell = k => span.unit === "chance" ? chance(values(span)[k], span.about) : withUnit(values(span)[k], span.unit);
    const regions = first.map(k => `${run.regions[k]}, ${tell(k)}`).join(" · ");
    if (span.unit === "chance") return changing(span).length ? `${resting(span, "chance")}: ${regions}` : noneAlone(named(order), span);
    if (run.unit === "attention" || span.whole_image === null) return regions;
    return regions ? `${withUnit(span.whole_image, run.unit)} in all · ${regions}` : resting(span, run.unit);
  }

  function showNumbers() {
    const span = current();
    pictures.number(top && span && !hardly(span, span.unit) ? order.slice(0, TOP) : [], all ? run.regions.map((_, k) => k) : [...marked()]);
  }

  function showLegend(scale, span) {
    const chances = span.unit === "chance", low = run.negative && !chances ? -1 : 0, attention = run.unit === "attention", each = span.patches ? "patch" : "region";
    const below = !chances ? "" : changing(span).length ? LIKELY : noneAlone(named(order), span);
    const kinds = [LIGHT, DARK].filter((_, dark) => run.images.some(image => Boolean(image.dark) === Boolean(dark)));
    const many = span.patches && scale < .1 ? 100 : 1; // patches whose number is legible
    const end = attention ? percent(scale) : plain(many * scale), per = many > 1 ? "100 patches" : each;
    const beyond = largest(span.heat.flat(2)) > 1.01 * scale ? " and more" : "";
    const stamp = [low, beyond, span.unit, end, below, span.paleness, per, ...kinds.map(kind => kind === DARK)].join();
    if (legend.stamp === stamp) return;
    legend.stamp = stamp;
    const ramps = kinds.map(kind => {
      const bar = make("i");
      bar.style.background = `linear-gradient(to right, ${Array.from({length: 17}, (_, i) => css((low + (1 - low) * i / 16) * span.paleness, kind))})`;
      return bar;
    });
    const place = (ends, words, more = []) => {
      const bars = set(make("div", "", ...ramps), {role: "img", "aria-label": `Colours run from ${ends[0]} to ${ends[1]}`});
      legend.replaceChildren(bars, make("div", "ticks", make("span", "", ends[0]), make("span", "", ...words), make("span", "", ends[1])), ...more);
    };
    if (chances) return place([chance(0), chance(1)], [term(`chance that it changes${span.about && ", not calibrated"}`, MEANINGS.chance)], [make("p", "", below)]);
    const ends = [run.negative ? `−${end}${beyond}` : "0", attention ? end : `+${end}${beyond}`], unit = attention ? ["share of attention", MEANINGS.attention] : [run.unit === "relative" ? "nats, sizes not calibrated" : "nats", MEANINGS.nats];
    place(ends, [run.negative ? "0 · " : "", term(...unit), " per ", span.patches ? term(attention ? each : per, MEANINGS.patch) : each]);
  }

  // Regions
  const marked = () => region === null ? chosen : new Set([...chosen, region]);
  function point(k) {
    if (region === k) return;
    region = k;
    showRegions();
  }
  function choose(k, several = false) {
    if (k === null || k === undefined) return;
    const on = chosen.has(k);
    if (!several) chosen = new Set();
    if (on) chosen.delete(k); else chosen.add(k);
    showSelection();
    showRegions();
  }
  function chooseAll(list) {
    chosen = new Set(list);
    showSelection();
    showRegions();
  }
  function showRegions() {
    const set = marked();
    root.classList.toggle("resting", set.size > 0);
    pictures.outline(set);
    showNumbers();
    about.mark(chosen);
    for (const span of run.spans) {
      const rest = [...set].map(k => Math.max(0, values(span)[k]));
      const through = run.rests?.spans.includes(span) ? [...set].map(k => run.rests.effects[k]) : [];
      const most = Math.max(0, ...through, ...[...set].map((k, i) => rest[i] / run.restsOn[k]));
      span.element.style.setProperty("--rest", most);
      span.bar.style.setProperty("--part", `${Math.min(100, rest.reduce((a, b) => a + b, 0) / run.mostVisual * 100)}%`);
    }
  }
  function showSelection() {
    if (!chosen.size) return selection.replaceChildren();
    const list = [...chosen], rests = run.spans.filter(span => list.some(k => values(span)[k] >= .25 * run.restsOn[k])).length;
    const words = `${list.map(k => run.regions[k]).join(", ")}: ${several(rests, "span")} ${rests === 1 ? "rests" : "rest"} on ${list.length > 1 ? "them" : "it"}` +
      (run.rests && list.length === 1 ? `; without it the answer ${withUnit(run.rests.effects[list[0]], "chance", run.rests.about)}` : "");
    const without = button(`Hide ${list.length > 1 ? "them" : "it"} and ask again`, "action", () => actions.askWithout(run, list, extras));
    const rethink = button(`Think again without ${list.length > 1 ? "them" : "it"}`, "action", () => actions.thinkAgain(run, list, extras));
    without.disabled = rethink.disabled = !run.id || live;
    selection.replaceChildren(make("p", "", words), together, ...(actions.askWithout ? [without] : []), ...(actions.thinkAgain ? [rethink] : []), button("Clear", "pill", () => { chosen = new Set(); showSelection(); showRegions(); }));
    status.textContent = words;
    showTogether();
  }

  /** What hiding the chosen regions together does to the shown span: predicted at once, and measured where asked for. */
  async function showTogether() {
    const of = run, span = run.spans[shown], list = [...chosen], key = `${of.id} ${whole} ${shown} ${list}`;
    if (together.stamp === key) return;
    together.stamp = key;
    together.replaceChildren();
    if (!actions.joint || list.length < 2 || whole || !span?.contributions || !of.id) return;
    const isOld = () => together.stamp !== key;
    try {
      const found = await actions.joint(of, span.index, list);
      if (isOld()) return;
      const words = make("span", "", ` span ${span.index} would lose ${withUnit(found.fall, of.unit)}; each alone, added up: ${signed(found.parts)}`), actual = make("b");
      const check = button("Verify together", "pill", async () => {
        check.disabled = true;
        const message = await actions.verifyTogether(of, span, list, x => { actual.textContent = ` actual ${withUnit(x, of.unit)}`; });
        if (!isOld() && message) actual.textContent = ` ${message}`;
        check.disabled = false;
      });
      together.replaceChildren(term("Hidden together", MEANINGS.joint), words, actual, check);
    } catch (error) {
      if (!isOld()) together.textContent = error.message;
    }
  }

  /** Words that were selected in the trace are shown as a span is, until another one is; `characters` count over all text. */
  async function showWords(text, characters, number) {
    const of = run;
    if (!of.id || !of.spans[number]?.contributions) return;
    try {
      const found = await actions.joint(of, characters, []);
      if (of !== run) return;
      run.words = derive(run, {...run.spans[number], ...found, text, interval: null, contribution_interval: null, patches: null, words: true});
      status.textContent = `Showing what “${text}” rests on`;
    } catch (error) {
      status.textContent = error.message;
    }
    changed("span");
  }
  function showTip(k, event, figure) {
    if (k === null || !run.spans.length) return tip.remove();
    const span = current(), best = run.spans.reduce((a, b) => values(b)[k] > values(a)[k] ? b : a);
    tip.replaceChildren(make("b", "", run.regions[k]), span === run.rests ? `: without it the answer ${withUnit(values(span)[k], "chance", span.about)}, ` : span ? `: ${withUnit(values(span)[k], span.unit)} here, ` : ": ",
      `most in span ${best.index} (${(span === run.rests ? withUnit : amount)(values(best)[k], run.unit)})`);
    figure.append(tip);
    const box = figure.getBoundingClientRect();
    tip.style.left = `${Math.max(0, Math.min(event.clientX - box.left + 14, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${event.clientY - box.top + 18}px`;
  }

  // Spans
  function hover(number) {
    if (pinned && number !== null) return;
    if (film.playing || hovered === number || (!live && number === shown && whole === isAnswer(number)) || run.words) return;
    hovered = number;
    if (number !== null && !live) { shown = number; hovered = null; whole = isAnswer(number); }
    changed("span");
    settle();
  }
  function pick(number, pin, scroll = "") {
    if (!run.spans.length) return;
    shown = Math.max(0, Math.min(run.spans.length - 1, number));
    hovered = run.words = null;
    pinned = pin;
    whole = isAnswer(shown);
    showTogether();
    changed("span");
    settle();
    const {element} = run.spans[shown];
    if (scroll === "focus") { trace.open(run.spans[shown].channel); element.focus({preventScroll: true}); }
    if (scroll) element.scrollIntoView({block: "nearest"});
  }
  function go(number) {
    trace.open(run.spans[number].channel);
    pick(number, true, "nearest");
  }
  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey || event.defaultPrevented) return;
    const target = event.target;
    if (target.closest?.("input, textarea, select, dialog, summary") || !run.spans.length) return;
    const moves = {ArrowLeft: shown - 1, ArrowUp: shown - 1, ArrowRight: shown + 1, ArrowDown: shown + 1, Home: 0, End: run.spans.length - 1};
    if (event.key in moves) {
      event.preventDefault();
      film.stop();
      pick(moves[event.key], true, target.closest?.(".strip") ? "nearest" : "focus");
    } else if (event.key === "Escape") {
      region = null;
      chosen = new Set();
      tip.remove();
      film.stop();
      showSelection();
      showRegions();
      if (run.rests) back(); else pick(shown, false);
    } else if ((event.key === "Enter" || event.key === " ") && target.closest?.(".span")) {
      event.preventDefault();
      pick(shown, !pinned);
    }
  }
  document.addEventListener("keydown", onKey);

  // Verification: the real ablation of every region, beside the prediction
  async function verify(span) {
    stopVerify?.abort();
    const abort = stopVerify = new AbortController(), of = run;
    span.verified = {running: true, actual: new Map(), agreement: null, total: of.regions.length, message: ""};
    const state = span.verified;
    pinned = true;
    pick(span.number, true);
    try {
      await actions.verify(of, span, event => {
        if (event.event === "region") {
          state.actual.set(event.region, event.actual);
          Object.assign(state, {agreement: event.rank_agreement, total: event.total});
        } else if (event.event === "error") state.message = event.message;
        state.waiting = event.event === "waiting";
        changed("span");
      }, abort.signal);
    } catch (error) {
      if (error.name !== "AbortError") state.message = error.message;
    }
    state.running = false;
    status.textContent = state.message || `Verified ${several(state.actual.size, "region")}; rank agreement ${state.agreement === null ? "unknown" : signed(state.agreement)}`;
    changed("span");
  }

  new ResizeObserver(() => changed("span")).observe(root);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const span of run.spans) span.drawnAt = null;
    changed("levels");
  });
  return {open, take: takeEvent, finish, settle, get run() { return run; }};
}
