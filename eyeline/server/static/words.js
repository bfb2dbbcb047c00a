// Numbers and places in words.

export const plain = x => {
  const size = Math.abs(x);
  return size.toFixed(size >= 99.95 ? 0 : size >= .095 ? 1 : size >= .0095 || !size ? 2 : 3);
};
export const signed = x => (x < 0 && Number(plain(x)) ? "−" : "") + plain(x);
export const amount = (x, unit) => unit === "attention" ? `${Math.round(x * 100)} %` : signed(x);
export const withUnit = (x, unit) => unit === "attention" ? `${amount(x, unit)} of attention` : `${signed(x)} nats`;
export const duration = s => s < 1 ? `${Math.max(1, Math.round(s * 1000))} ms` : `${plain(s)} s`;
export const several = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** Where each region lies: "top left", or "top left of image 2" if there are several. */
export function nameRegions(grids) {
  const names = [];
  grids.forEach((labels, i) => {
    for (const region of new Set(labels.flat()))
      names[region] = where(labels, region) + (grids.length > 1 ? ` of image ${i + 1}` : "");
  });
  return names;
}

function where(labels, region) {
  const rows = labels.length, cols = labels[0].length, ys = [], xs = [];
  labels.forEach((line, y) => line.forEach((k, x) => { if (k === region) { ys.push(y); xs.push(x); } }));
  const extent = list => Math.max(...list) - Math.min(...list) + 1;
  const tall = extent(ys) >= .75 * rows && rows > 2, wide = extent(xs) >= .75 * cols && cols > 2;
  if (tall && wide) return ys.length >= .5 * rows * cols ? "most of the image" : "all over the image";
  const down = third(ys, rows), across = third(xs, cols);
  if (tall) return ["left side", "middle, top to bottom", "right side"][across];
  if (wide) return ["top edge", "middle, left to right", "bottom edge"][down];
  return [["top", "", "bottom"][down], ["left", "", "right"][across]].filter(Boolean).join(" ") || "centre";
}

/** In which third of `n` cells their mean lies; in 32-bit floats, as in Python. */
function third(list, n) {
  const mean = Math.fround(list.reduce((a, b) => a + b, 0) / list.length);
  return Math.min(2, Math.floor(Math.fround(Math.fround(Math.fround(mean + .5) / n) * 3)));
}
