// Elements in one line each. Strings become text nodes, so that nothing a model writes is ever markup.

export function make(tag, name = "", ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  element.append(...children);
  return set(element, attributes);
}

/** Sets attributes; `null` and `false` remove them. */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === false) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : value);
  }
  return element;
}

export function button(label, name, act) {
  const element = make("button", name, label);
  element.type = "button";
  element.addEventListener("click", act);
  return element;
}

/** A button that is on or off. */
export function toggle(label, on, act) {
  const element = button(label, "toggle", () => {
    const now = element.getAttribute("aria-pressed") !== "true";
    set(element, {"aria-pressed": String(now)});
    act(now);
  });
  return set(element, {"aria-pressed": String(on)});
}

/** A word that says what it means, under the pointer, with the focus and to those who hear the page. */
export function term(word, meaning) {
  const note = set(make("span", "meaning", meaning), {role: "tooltip", id: `meaning-${terms += 1}`});
  const element = set(button(word, "", () => element.focus()), {"aria-describedby": note.id}); // not every browser focuses what is clicked
  element.addEventListener("keydown", event => { if (event.key === "Escape") element.blur(); });
  return make("span", "term", element, note);
}
let terms = 0;

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A canvas as sharp as the screen, its context scaled to CSS pixels. */
export function sharpen(canvas) {
  const box = canvas.getBoundingClientRect(), dense = Math.min(devicePixelRatio || 1, 3);
  const width = Math.round(box.width * dense), height = Math.round(box.height * dense);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  const context = canvas.getContext("2d");
  context.setTransform(dense, 0, 0, dense, 0, 0);
  context.clearRect(0, 0, box.width, box.height);
  return {context, width: box.width, height: box.height};
}
