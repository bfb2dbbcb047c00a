// Colour of an effect: towards orange for what supports the text, towards blue for what speaks against it. The pair is
// told apart with every kind of colour blindness, and strength is lightness alone, so that it survives in grey too.
// From white, multiplied into light images, and from black, screened onto dark ones.

export const LIGHT = {
  up: [[255, 255, 255], [255, 228, 190], [253, 184, 108], [240, 113, 58], [201, 44, 30]],
  down: [[255, 255, 255], [212, 230, 243], [146, 195, 226], [74, 144, 200], [32, 90, 160]],
};
export const DARK = {
  up: [[0, 0, 0], [74, 24, 8], [156, 56, 14], [206, 88, 24], [232, 126, 42]],
  down: [[0, 0, 0], [8, 32, 66], [20, 66, 124], [38, 100, 174], [64, 140, 214]],
};
const STEPS = 512;

/** `value` in [-1, 1], as three numbers up to 255. */
export function colour(value, ramps) {
  const ramp = value < 0 ? ramps.down : ramps.up, at = Math.min(1, Math.abs(value)) * (ramp.length - 1);
  const low = Math.min(Math.floor(at), ramp.length - 2);
  return ramp[low].map((c, i) => Math.round(c + (ramp[low + 1][i] - c) * (at - low)));
}

export const css = (value, ramps) => `rgb(${colour(value, ramps).join(" ")})`;

/** All colours of `ramps` as bytes, for drawing pixel by pixel: look up with `step`. */
export function table(ramps) {
  const bytes = new Uint8ClampedArray(4 * (2 * STEPS + 1));
  for (let i = 0; i <= 2 * STEPS; i += 1) bytes.set([...colour(i / STEPS - 1, ramps), 255], 4 * i);
  return new Uint32Array(bytes.buffer);
}
export const step = value => Math.round((Math.max(-1, Math.min(1, value)) + 1) * STEPS);

/** Whether heat stands out better as light on the picture than as ink. */
export function isDark(picture) {
  const canvas = Object.assign(document.createElement("canvas"), {width: 16, height: 16});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.drawImage(picture, 0, 0, 16, 16);
  const pixels = context.getImageData(0, 0, 16, 16).data;
  let light = 0;
  for (let i = 0; i < pixels.length; i += 4) light += .299 * pixels[i] + .587 * pixels[i + 1] + .114 * pixels[i + 2];
  return light / 256 < 100;
}
