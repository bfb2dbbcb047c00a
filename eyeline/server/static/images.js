// The images of a question that is being written: read from files, and made smaller where the server takes no more.

import {make} from "./dom.js";

const SENT_AS_THEY_ARE = ["image/png", "image/jpeg", "image/webp", "image/gif"];
const QUALITY = .92, SMALLER = .8; // of a JPEG; of a side, where an image is still too heavy
const AROUND = 2 ** 16; // bytes of a request beside its images

/** An image of `blob`; rejects what this browser cannot decode. */
export async function readImage(blob) {
  const picture = await createImageBitmap(blob), {width, height} = picture;
  picture.close();
  return {blob, width, height, url: URL.createObjectURL(blob)};
}

/** The most that each of `sizes` may keep for all of them to stay within `limit`; the small ones keep what they have. */
function share(sizes, limit) {
  let left = limit, count = sizes.length;
  for (const size of [...sizes].sort((a, b) => a - b)) {
    if (size > left / count) return left / count;
    left -= size;
    count -= 1;
  }
  return Infinity;
}

/** For each image the size in pixels that it is sent in. */
export function fittingSizes(images, {pixels}) {
  const most = share(images.map(({width, height}) => width * height), pixels);
  return images.map(({width, height}) => {
    const scale = Math.min(1, Math.sqrt(most / (width * height)));
    return {width: Math.max(1, Math.floor(width * scale)), height: Math.max(1, Math.floor(height * scale))};
  });
}

/** The images as data URLs that together fit into one request. */
export function encode(images, limits) {
  const sizes = fittingSizes(images, limits), bytes = share(images.map(({blob}) => blob.size), .75 * (limits.body - AROUND));
  return Promise.all(images.map(async ({blob, width}, i) => {
    const asIs = sizes[i].width === width && blob.size <= bytes;
    return readUrl(asIs && SENT_AS_THEY_ARE.includes(blob.type) ? blob : await redraw(blob, sizes[i], asIs ? "image/png" : "image/jpeg", bytes));
  }));
}

/** The image at `size`, or as much smaller as `bytes` (and the browser, which may have a limit of its own) ask for. */
async function redraw(blob, {width, height}, kind, bytes) {
  const picture = await createImageBitmap(blob), canvas = make("canvas");
  for (let scale = 1; scale > .01; scale *= SMALLER) {
    Object.assign(canvas, {width: Math.max(1, Math.floor(width * scale)), height: Math.max(1, Math.floor(height * scale))});
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "#fff"; // where it is transparent, as the model sees it
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(picture, 0, 0, canvas.width, canvas.height);
    const drawn = await new Promise(resolve => canvas.toBlob(resolve, kind, QUALITY));
    if (drawn && drawn.size <= bytes) return drawn;
    kind = "image/jpeg";
  }
  throw new Error("An image cannot be made small enough to be sent; give it as a smaller file.");
}

const readUrl = blob => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(blob);
});
