// Numbers and places in words, and what the words mean. Every number of the page gets its form here.

/** Two decimals under 10, one under 100, none above. */
export const plain = x => {
  const size = Math.abs(x);
  return size.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
};
/** What rounds to nothing has no sign. */
export const signed = x => (x < 0 && Number(plain(x)) ? "−" : "") + plain(x);
export const percent = x => `${plain(100 * x)} %`;
/** `about` is "~" where sizes are not calibrated. */
export const chance = (x, about = "") => `${about}${Math.round(100 * x)} %`;
/** Chances from which an answer rather changes than not, and from which that is worth a word: the one rule of "would change". */
export const RATHER = .5, POSSIBLE = .1;
export const wouldChange = x => x >= RATHER ? "would change" : x >= POSSIBLE ? "may change" : "would hardly change";
export const amount = (x, unit) => ({attention: percent, chance: share => chance(share)})[unit]?.(x) ?? signed(x);
export const withUnit = (x, unit, about = "") => ({attention: `${percent(x)} of attention`, relative: `~${signed(x)} nats`, chance: `${wouldChange(x)} (${chance(x, about)})`})[unit] ?? `${signed(x)} nats`;
export const duration = s => s < 1 ? `${Math.max(1, Math.round(s * 1000))} ms` : `${plain(s)} s`;
export const several = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;

/** What a word on the page means, said where it stands. */
export const MEANINGS = {
  chance: "How likely the answer would mean something else if this part had been hidden before the model thought. Predicted, from what each sentence takes from the image and from earlier ones.",
  without: "How likely the answer would mean something else if the whole image had been hidden before the model thought.",
  from: "Sentences that this takes most from. The number is the fall of the log of its probability, in nats, if it could not look back at that sentence.",
  into: "Later sentences that take from this one, with the fall of their log probability, in nats, if they could not look back at it.",
  span: "A sentence of the text, or a line of code.",
  contribution: "What hiding the region costs the text, as the log of its probability, on average beside other regions that are hidden too; predicted from the model’s " +
    "attention while it wrote. Contributions of all regions add up to what hiding the whole image costs. Above 0 the region supports the text, below 0 it speaks against it.",
  effect: "By how much the log of the text’s probability falls with that region alone hidden, as predicted from the model’s attention while it wrote. " +
    "Above 0 the region supports the text, below 0 it speaks against it.",
  attention: "The region’s share of the attention to the image while the text was written. It does not say what the text rests on.",
  nats: "The unit of all these numbers, the natural logarithm of a probability: a fall by 1 nat makes the text 2.7 times less likely, by 0.1 nats a tenth.",
  patch: "The model sees the image as a grid of small squares, its patches; each is coloured by its part of its region’s number.",
  interval: "Holds the measured value 9 times in 10.",
  whole: "What hiding the whole image at once costs the text. The regions’ contributions add up to it.",
  joint: "The predicted fall of the log of the text’s probability with all these regions hidden at once.",
  enough: "Shown alone, with all others hidden, these regions keep nine tenths of what the whole image gives the text.",
  breaks: "Hidden together, these regions take half of what the whole image gives the text, or as much as five of them do.",
  log: "The natural logarithm of the probability that the model gave to this text: 0 is certain, −1 is 37 %, −2.3 is 10 %.",
  latency: "The time from the span’s last token to its numbers.",
  spread: "Over how many regions of equal weight the effect would be as widely spread; 1 is one region alone.",
  reliance: "What hiding the whole image costs a span.",
  strongest: "The share of attention of a span’s strongest region.",
  part: "Each region’s number in each span: orange supports the text, blue speaks against it.",
  agreement: "Whether the prediction orders regions as hiding each of them for real does (Spearman’s correlation): 1 is the same order, 0 has nothing to do with it, −1 is the reverse. " +
    "Regions that do next to nothing are ranked as well, and are many: it may be low where those that matter agree.",
  addedUp: "The predicted falls with each of these regions hidden alone, added up, and the measured ones.",
  actual: "Measured: the fall of the log of the text’s probability with that region hidden from the model.",
};

/** What a finished answer rests on, in a sentence: regions as names with chances, those `without` which it would change and those `worth` naming; `more` would, too. */
export const answerRests = (without, worth, answer, more = 0) => (answer.grounded === false ? "Not grounded: the image gives little reason for this answer. " : "") +
  (without.length ? `Would change if one of these had been hidden before the model thought: ${listed(without, answer)}${more ? ` and ${more} more` : ""}.` : noneAlone(worth, answer));
export const LIKELY = "How likely the answer is to change if this part had been hidden before the model thought.";
/** Said where no region would change the answer by itself; `none_alone` in report.py says the same. */
export const noneAlone = (worth, {whole_image: whole, about}) => `No part by itself is likely to change it${worth.length ? `; most likely ${listed(worth, {about})}` : ""}. ` +
  `${whole >= RATHER ? "Without the whole image it would change" : "Nor is the whole image"} (${chance(whole, about)}).`;
const listed = (regions, {about}) => regions.map(([name, x]) => `${name} (${chance(x, about)})`).join(", ");

/** What the words of `resting` mean, where they say more than "rests on". */
export const RESTING = {
  "follows from the text before it": "Hiding the image changes nothing here: the model says this from what it has written already, which may itself rest on the image.",
  "hardly rests on the image": "Hiding the whole image, or any part of it, does less than half a nat to this text.",
  "is likelier without the image": "The image speaks against this text: with the image hidden the model finds it likelier.",
  "would change without": "The answer is held against the image through the thinking: how likely it would be another if a part had been hidden before the model thought.",
  "may change without": "No part by itself is likely to change the answer: with each hidden before the model thought it would rather be the same than another.",
  "would change without the whole image": "No part by itself is likely to change the answer, but hiding all of them before the model thought would.",
  "would hardly change": "Whichever part had been hidden before the model thought, the answer would most likely be the same.",
  "rests on several regions together": "Hiding one region does little, since others make up for it; hiding all of them does much.",
};

export const UNGROUNDED = "It states something, but the model would have said much the same with the image and all that was read from it hidden. " +
  "A prediction: hide the image and ask again to check.";

/** Where each region lies: "top left", or "top left of image 2" if there are several. */
export function placeRegions(grids) {
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
