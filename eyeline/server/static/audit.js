// How the numbers hold where a part of them is measured for real while nobody waits; nothing where nothing is.

import {pause} from "./client.js";
import {plain, several} from "./words.js";

const EVERY_MS = 5000;

const range = ([mean, low, high]) => `${plain(mean)}${low === null ? "" : ` [${plain(low)}, ${plain(high)}]`}`;

function words({lds, r2, spans, questions, drifted, bound}) {
  if (drifted) return `Do not rely on the numbers: the estimator does not predict this model any more (LDS ${lds ? range(lds) : "none"}, where ${plain(bound)} are expected at least). Fit it again.`;
  if (!spans) return "Predictions are checked while nobody asks anything; none has been checked yet.";
  const where = `${several(spans, "span")} of ${several(questions, "question")}`;
  return lds ? `Checked by hiding parts for real, ${where}: LDS ${range(lds)}, R2 ${range(r2)}` : `Checked by hiding parts for real, ${where}: hiding changed nothing in them, so they do not tell how good predictions are.`;
}

/** Keeps `element` told of the server's audit, as long as there is one. */
export async function showAudit(client, element) {
  for (let told; (told = await client.json("/v1/audit")).on; await pause(EVERY_MS)) {
    element.textContent = words(told);
    element.classList.toggle("drifted", told.drifted);
  }
}
