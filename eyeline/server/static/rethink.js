// Thinking again: a run's trace and the one that the model writes with regions hidden from the start, what differs marked.

import {make, set} from "./dom.js";
import {signed, withUnit} from "./words.js";

/** Fills a section of `place` with what the server measures; `pictures` show what is hidden. */
export async function rethink(client, run, regions, place, pictures) {
  const names = regions.map(k => run.regions[k]).join(", ");
  const verdict = set(make("p", "verdict", "Thinking again …"), {role: "status"});
  const body = make("div"), row = make("div", "pictures-row", ...pictures);
  const section = make("section", "compare rethought", make("h2", "", `Thought again without ${names}`), row, verdict, body);
  place.prepend(section);
  section.scrollIntoView({block: "nearest"});
  try {
    for await (const event of client.events("/v1/rethink", {body: {run: run.id, regions}}, {again: () => true})) {
      if (event.event === "error") throw new Error(event.message);
      if (event.event === "rethought") show(event, section, verdict, body);
    }
  } catch (error) {
    verdict.textContent = error.message;
  }
}

function show(told, section, verdict, body) {
  const [found] = told.sets, times = told.samples;
  if (times > 1) verdict.textContent = `The answer changes in ${Math.round(found.changes * times)} of ${times} samples.`;
  else verdict.textContent = found.changes ? "The answer changes." : "The answer stays the same.";
  section.classList.add(found.changes ? "changed" : "same");
  const predicted = found.predicted ? `; predicted: ${Math.round(100 * found.predicted.changes)} % likely to change` : "";
  const numbers = `The first answer loses ${withUnit(found.total, "nats")}: directly ${signed(found.direct)}, through the thinking ${signed(found.through)}${predicted}`;
  const traces = make("dl", "traces", make("dt", "", "As it was"), side(found.again[0], "first"),
    make("dt", "", "Thought again"), side(found.again[0], "again"));
  body.replaceChildren(make("p", "", numbers), traces);
}

/** One of both traces: what stands in it alone is marked. */
function side(again, which) {
  const pieces = again.differences.filter(([kind]) => kind === "same" || kind === which);
  return make("dd", "", ...pieces.map(([kind, text]) => kind === "same" ? text : make(which === "first" ? "del" : "ins", "", text)));
}
