// The images, with the heat of one span on them. The heat moves: from whatever is drawn towards the next span's.

import {DARK, LIGHT, isDark, step, table} from "./colour.js";
import {calm, draw, make, set} from "./dom.js";

const MOVE_MS = 480;
const TABLES = {light: table(LIGHT), dark: table(DARK)};

/** `on.over(region, event, figure)`, `on.leave()` and `on.pick(region, event, figure)` hear of the pointer. */
export function createPictures(on) {
  const element = make("div", "images bare"); // outlines only under the pointer
  let frames = [], frameRequest = 0, startedAt = 0, fine = true, numbered = "";

  function show(images) {
    cancelAnimationFrame(frameRequest);
    numbered = "";
    frames = images.map((image, i) => newFrame(image, i, images.length));
    element.replaceChildren(...frames.map(frame => frame.figure));
    fit();
  }

  function newFrame(image, i, count) {
    const figure = make("figure"), box = make("div", "frame"), picture = make("img"), canvas = make("canvas");
    const svg = draw("svg", {preserveAspectRatio: "none", "aria-hidden": "true"});
    const paths = ["outlines under", "outlines", "chosen under", "chosen"].map(name => draw("path", {class: name}));
    const claimed = ["claimed under", "claimed"].map(name => draw("path", {class: name})), labels = make("div", "badges");
    const badges = make("div", "badges");
    const frame = {image, figure, box, picture, canvas, svg, paths, badges, claimed, names: labels, aspect: image.width / image.height || 4 / 3};
    picture.alt = count > 1 ? `Image ${i + 1} of the question` : "The image of the question";
    picture.addEventListener("load", () => {
      if (!image.width) { frame.aspect = picture.naturalWidth / picture.naturalHeight; fit(); }
      if (image.dark === undefined) { image.dark = isDark(picture); box.classList.toggle("dark", image.dark); paint(); }
    });
    picture.src = image.url;
    box.classList.toggle("dark", image.dark === true);
    set(canvas, {"aria-hidden": "true"});
    svg.append(...paths, ...claimed);
    box.append(picture, canvas, svg, labels, badges);
    figure.append(box);
    if (count > 1) figure.append(make("figcaption", "", `Image ${i + 1}`));
    box.addEventListener("pointermove", event => {
      if (event.pointerType === "mouse" && frame.labels) on.over(cell(frame, event), event, figure);
    });
    box.addEventListener("pointerleave", () => on.leave());
    box.addEventListener("click", event => { if (frame.labels) on.pick(cell(frame, event), event, figure); });
    return frame;
  }

  function fit() {
    for (const {figure, aspect} of frames) figure.style.setProperty("--aspect", aspect);
    element.style.setProperty("--aspects", frames.reduce((total, {aspect}) => total + aspect, 0));
  }

  function cell({box, labels}, event) {
    const {left, top, width, height} = box.getBoundingClientRect();
    const row = Math.floor((event.clientY - top) / height * labels.length);
    return labels[row]?.[Math.floor((event.clientX - left) / width * labels[0].length)] ?? null;
  }

  /** The grids of visual tokens and regions, once they are known. */
  function place(start) {
    frames.forEach((frame, i) => {
      const {width, height, rows, cols} = start.images[i];
      frame.labels = start.regions[i];
      frame.aspect = width / height;
      Object.assign(frame.image, {width, height});
      frame.now = frame.from = frame.to = new Float32Array(rows * cols);
      set(frame.svg, {viewBox: `0 0 ${cols} ${rows}`});
      const all = borders(frame.labels, (a, b) => a !== b && b !== undefined);
      for (const path of frame.paths.slice(0, 2)) path.setAttribute("d", all);
    });
    fit();
    paint();
  }

  /** Moves the heat to `grids` (one an image), of which `scale` gets the full colour. */
  function move(grids, scale, smooth) {
    fine = smooth;
    startedAt = performance.now();
    frames.forEach((frame, i) => {
      frame.from = frame.now.slice();
      frame.to = Float32Array.from(grids[i].flat(), x => Math.max(-1, Math.min(1, x / scale)));
      frame.canvas.classList.toggle("blocks", !smooth);
    });
    element.classList.add("moving");
    cancelAnimationFrame(frameRequest);
    if (calm()) tick(startedAt + MOVE_MS); else frameRequest = requestAnimationFrame(tick);
  }

  function tick(time) {
    const t = Math.max(0, Math.min(1, (time - startedAt) / MOVE_MS)), eased = t * t * (3 - 2 * t);
    for (const frame of frames) frame.now = frame.from.map((x, i) => x + (frame.to[i] - x) * eased);
    paint();
    if (t < 1) frameRequest = requestAnimationFrame(tick); else element.classList.remove("moving");
  }

  function paint() {
    for (const frame of frames) if (frame.labels) paintFrame(frame, fine);
  }

  function outline(regions) {
    for (const {labels, paths} of frames) {
      if (!labels) continue;
      const edge = regions.size ? borders(labels, (a, b) => regions.has(a) !== regions.has(b)) : "";
      for (const path of paths.slice(2)) path.setAttribute("d", edge);
    }
  }

  /** The numbers of some regions on the image: `strong` ones stand out from `others`. */
  function number(strong, others) {
    const key = [...strong, "", ...others].join();
    if (key === numbered) return;
    numbered = key;
    const all = [...strong.map(k => [k, "badge"]), ...others.filter(k => !strong.includes(k)).map(k => [k, "badge faint"])];
    for (const {labels, badges} of frames) {
      if (!labels) continue;
      badges.replaceChildren(...all.flatMap(([region, kind]) => {
        const place = corner(labels, region);
        if (!place) return [];
        const badge = make("span", kind, String(region));
        badge.style.setProperty("--x", `${place.x * 100}%`);
        badge.style.setProperty("--y", `${place.y * 100}%`);
        return [badge];
      }));
    }
  }

  /** What the model itself says of where things are, on the only image: boxes, and points, whose box has no size. */
  function claim(claims) {
    const [frame] = frames;
    if (!frame?.labels) return;
    const rows = frame.labels.length, cols = frame.labels[0].length;
    const edge = claims.map(({box: [left, top, right, bottom]}) => {
      const x = left * cols, y = top * rows;
      return left === right ? `M${x - .3} ${y}h.6M${x} ${y - .3}v.6` : `M${x} ${y}H${right * cols}V${bottom * rows}H${x}Z`;
    }).join("");
    for (const path of frame.claimed) path.setAttribute("d", edge);
    frame.names.replaceChildren(...claims.map(({label, box}) => {
      const name = make("span", "claim", `says: ${label || (box[0] === box[2] ? "point" : "box")}`);
      name.style.setProperty("--x", `${box[0] * 100}%`);
      name.style.setProperty("--y", `${box[1] * 100}%`);
      return name;
    }));
  }

  /** Where in the window a region is: its middle, or the cell of it that is nearest to that. */
  function at(region) {
    for (const {labels, box} of frames) {
      const cells = (labels ?? []).flatMap((line, y) => line.flatMap((k, x) => k === region ? [[x + .5, y + .5]] : []));
      if (!cells.length) continue;
      const [u, v] = [0, 1].map(i => cells.reduce((total, place) => total + place[i], 0) / cells.length), far = ([x, y]) => (x - u) ** 2 + (y - v) ** 2;
      const [x, y] = labels[Math.floor(v)][Math.floor(u)] === region ? [u, v] : cells.reduce((a, b) => far(b) < far(a) ? b : a), {left, top, width, height} = box.getBoundingClientRect();
      return {x: left + x / labels[0].length * width, y: top + y / labels.length * height};
    }
    return null;
  }

  return {element, show, place, move, outline, number, claim, at, toggleOutlines: on => element.classList.toggle("bare", !on)};
}

/** Heat between the centres of cells is bilinear; without patches each region is one flat colour. */
function paintFrame({canvas, labels, now, image}, smooth) {
  const rows = labels.length, cols = labels[0].length, n = smooth ? rows * cols > 1600 ? 4 : 8 : 1;
  const width = cols * n, height = rows * n, colours = image.dark ? TABLES.dark : TABLES.light;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  const context = canvas.getContext("2d"), pixels = context.createImageData(width, height);
  const words = new Uint32Array(pixels.data.buffer);
  for (let y = 0; y < height; y += 1) {
    const v = Math.max(0, Math.min(rows - 1, (y + .5) / n - .5)), top = Math.floor(v), down = Math.min(rows - 1, top + 1);
    for (let x = 0; x < width; x += 1) {
      const u = Math.max(0, Math.min(cols - 1, (x + .5) / n - .5)), left = Math.floor(u), right = Math.min(cols - 1, left + 1);
      const above = now[top * cols + left] + (now[top * cols + right] - now[top * cols + left]) * (u - left);
      const below = now[down * cols + left] + (now[down * cols + right] - now[down * cols + left]) * (u - left);
      words[y * width + x] = colours[step(above + (below - above) * (v - top))];
    }
  }
  context.putImageData(pixels, 0, 0);
}

/** A small still picture: an image with one value a region on it, such as what ablation measured. */
export function still(image, labels, values, scale, caption) {
  const frame = make("div", image.dark ? "frame dark" : "frame"), picture = make("img"), canvas = make("canvas", "blocks");
  Object.assign(picture, {src: image.url, alt: ""});
  set(canvas, {role: "img", "aria-label": caption});
  const now = Float32Array.from(labels.flat(), k => (values[k] ?? 0) / scale);
  paintFrame({canvas, labels, now, image}, false);
  frame.append(picture, canvas);
  frame.style.setProperty("--aspect", image.width / image.height);
  return make("figure", "still", frame, make("figcaption", "", caption));
}

/** The corner of a region's first cell, as shares of the image; null where it lies in another image. */
function corner(labels, region) {
  const y = labels.findIndex(line => line.includes(region));
  return y < 0 ? null : {x: labels[y].indexOf(region) / labels[0].length, y: y / labels.length};
}

/** An SVG path along the cell sides where `differs(label, the neighbour's label)`. */
export function borders(labels, differs) {
  const parts = [];
  labels.forEach((line, y) => line.forEach((k, x) => {
    if (differs(k, line[x + 1])) parts.push(`M${x + 1} ${y}v1`);
    if (differs(k, labels[y + 1]?.[x])) parts.push(`M${x} ${y + 1}h1`);
    if (x === 0 && differs(k, undefined)) parts.push(`M${x} ${y}v1`);
    if (y === 0 && differs(k, undefined)) parts.push(`M${x} ${y}h1`);
  }));
  return parts.join("");
}
