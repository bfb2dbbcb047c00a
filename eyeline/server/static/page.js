// The page: asking, and opening what was asked before. What a run shows is left to the view.

import {showAudit} from "./audit.js";
import {LostError, createClient, pause} from "./client.js";
import {button, calm, draw, make, set} from "./dom.js";
import {encode, fittingSizes, readImage} from "./images.js";
import {createPace} from "./pace.js";
import {rethink} from "./rethink.js";
import {createView} from "./view.js";
import {several} from "./words.js";

const POLL_MS = 700; // of a run that somebody else is asking
const PACE = "eyeline-pace"; // what was chosen: "reading" or "at once"
const CUT = "This run was cut short: the connection to the server was lost while the model was writing.";

const byId = id => document.getElementById(id);
const client = createClient(askKey, reachable => { byId("unreachable").textContent = reachable ? "" : "The server is not reachable; trying again"; });
const root = byId("view"), problem = byId("problem");
let images = []; // of the question that is being written
let reading = Promise.resolve(); // of the files chosen so far
let generation = null, opening = null, ours = false; // what fills the view; what will; whether it was asked here
let written = false; // whether the model has ended, though not all may be shown
let listing = null, next = null;

const stop = button("Stop", "pill stop", () => generation?.abort());
const again = button("Ask about it again", "pill", () => compose(view.run.images.map(image => image.blob), view.run.done ? "" : view.run.prompt));
const link = button("Copy link", "", copyLink);
const downloads = make("details", "downloads", make("summary", "pill", "Download"), make("div", "",
  button("Report, one HTML file", "", () => download("report.html")),
  button("Events, JSON lines", "", () => download("events.jsonl")),
  button("Gaze, animated GIF", "", () => download("gaze.gif")), link));
const failure = set(make("p", "problem"), {role: "alert"});
const jump = button("Jump to the end", "pill", () => pace.jump()), paced = set(make("input"), {type: "checkbox", role: "switch"});
const pacing = make("label", "pacing", paced, "Play at reading pace");
const view = createView(root, {verify, verifyTogether, joint, askWithout, thinkAgain, head: [pacing, jump, stop, again, downloads, failure]});
const pace = createPace(view.take, () => paced.checked, behind => {
  if (!behind && document.activeElement === jump) root.focus({preventScroll: true});
  jump.hidden = !behind;
});
paced.checked = (localStorage.getItem(PACE) ?? (calm() ? "at once" : "reading")) === "reading";
paced.addEventListener("change", () => { localStorage.setItem(PACE, paced.checked ? "reading" : "at once"); pace.go(); });
jump.hidden = true;

// Asking
/** Adds `files`, or those that a promise gives; a question that is asked before they are read waits for them. */
function addFiles(files) {
  reading = reading.then(async () => readFiles(await files)).catch(error => { problem.textContent = error.message; });
}

async function readFiles(files) {
  problem.textContent = "";
  for (const file of files) {
    try {
      images.push(await readImage(file));
    } catch {
      problem.textContent = `“${file.name ?? "The image"}” is not an image that this browser can read; use a PNG or a JPEG file.`;
    }
  }
  showImages();
  if (images.length) byId("question").focus();
}

function showImages() {
  byId("thumbs").replaceChildren(...images.map(({url}, i) => {
    const name = `image ${i + 1} of the question`, picture = Object.assign(make("img"), {src: url, alt: name});
    const remove = button("×", "", () => { images.splice(i, 1); showImages(); byId("files").focus(); });
    return make("li", "", picture, set(remove, {"aria-label": `Remove ${name}`}));
  }));
  byId("drop").classList.toggle("filled", images.length > 0);
  byId("add-label").textContent = images.length ? "Add an image" : "Drop, paste or choose an image";
  describeSizes().catch(() => {});
}

/** Says which images are made smaller before they are sent. */
async function describeSizes() {
  const {limits} = await served(), sizes = fittingSizes(images, limits);
  const lines = images.flatMap(({width}, i) => sizes[i].width < width ? [`image ${i + 1} as ${sizes[i].width} × ${sizes[i].height} pixels`] : []);
  byId("sizes").textContent = lines.length ? `Sent smaller: ${lines.join(", ")}. The model’s server takes ${limits.pixels / 1e6} megapixels in all.` : "";
}

/** What the server says of its model and of what it takes. */
function served() {
  served.answer ??= client.json("/v1/models").then(({data}) => ({name: data[0].id, ...data[0].eyeline}));
  served.answer.catch(() => { served.answer = null; });
  return served.answer;
}

async function ask() {
  await reading; // Enter may come before the last file is read
  const prompt = byId("question").value.trim();
  if (!images.length || !prompt) {
    problem.textContent = images.length ? "Type a question about the image." : "Give it an image first: drop, paste or choose one.";
    byId(images.length ? "question" : "files").focus();
    return;
  }
  const number = id => byId(id).value === "" ? undefined : Number(byId(id).value);
  const options = {temperature: number("temperature"), max_tokens: number("max-tokens"), seed: number("seed")};
  const mine = begin(), given = [...images];
  ours = true;
  open({prompt, images: given.map(image => ({...image})), isLive: true});
  await fill(mine, async () => {
    const {limits} = await served();
    if (given.length > limits.images) throw new Error(`The server takes ${several(limits.images, "image")} at most; ask about fewer.`);
    const urls = await encode(given, limits);
    const content = [...urls.map(url => ({type: "image_url", image_url: {url}})), {type: "text", text: prompt}];
    await follow(mine, {messages: [{role: "user", content}], stream: true, ...options, eyeline: {save: true}});
  });
}

/** What is filling the view now; whatever did before ends. */
function begin(controller = new AbortController()) {
  for (const other of [generation, opening]) if (other !== controller) other?.abort();
  [generation, opening, ours] = [controller, null, false];
  return controller;
}

/** Takes the events of a question as they come, at the pace chosen; those that a lost connection kept back come from the saved run. */
async function follow(mine, body) {
  let taken = 0;
  const showPlace = place => { failure.textContent = place.startsWith("waiting") ? `${place.replace("waiting", "Waiting")} …` : ""; };
  try {
    for await (const chunk of client.events("/v1/chat/completions", {body, signal: mine.signal}, {onComment: showPlace, again: () => !view.run.id})) {
      if (mine !== generation) return;
      if (chunk.id && !view.run.id) name(chunk.id);
      if (chunk.error) throw new Error(chunk.error.message);
      if (chunk.eyeline) { pace.push(chunk.eyeline); taken += 1; failure.textContent = ""; }
    }
  } catch (error) {
    if (!(error instanceof LostError)) throw error;
    const last = await catchUp(view.run.id, taken, mine.signal, pace.push);
    if (last?.event !== "done") throw new Error(CUT);
  }
  written = true;
  showState();
  await pace.drained();
}

/** Gives `show` what a saved run has beyond `taken` events, until it is over; resolves to the last one. */
async function catchUp(id, taken, signal, show, run = null) {
  for (;;) {
    run ??= await client.json(`/v1/runs/${encodeURIComponent(id)}`, {signal});
    signal.throwIfAborted();
    for (const event of run.events.slice(taken)) show(event);
    taken = run.events.length;
    if (!run.running) return run.events.at(-1);
    await pause(POLL_MS, signal);
    run = null;
  }
}

/** Runs `work`, which gives the view its events, and says how it ended. */
async function fill(mine, work) {
  let why;
  try {
    await work();
  } catch (error) {
    why = error.name === "AbortError" ? "Stopped." : error.message;
    if (mine === generation && error.name !== "AbortError") failure.textContent = why;
  }
  if (mine !== generation) return;
  if (why) pace.jump(); // what came until then
  generation = null;
  view.finish(why);
  showState();
}

function name(id) {
  view.run.id = id;
  history.replaceState(null, "", `./?run=${encodeURIComponent(id)}`);
  showState();
}

function open(options) {
  byId("welcome").hidden = true;
  byId("new-question").hidden = root.hidden = false;
  document.title = `${options.prompt.slice(0, 80)} · Eyeline`;
  failure.textContent = "";
  written = false;
  jump.before(pacing);
  pace.clear();
  view.open(options);
  scrollTo(0, 0);
  root.tabIndex = -1;
  root.focus({preventScroll: true});
  showState();
}

function showState() {
  const live = generation !== null;
  stop.hidden = !(live && ours) || written;
  pacing.hidden = !live && !root.hidden;
  again.hidden = live;
  downloads.hidden = live || !view.run.id;
  downloads.open = false;
}

/** Back to asking, with the images that `blobs`, or a promise of them, has. */
function compose(blobs, prompt) {
  generation?.abort();
  opening?.abort();
  generation = opening = null;
  pace.clear();
  offerPace();
  images = [];
  showImages();
  root.hidden = byId("new-question").hidden = true;
  byId("welcome").hidden = false;
  byId("question").value = prompt;
  problem.textContent = byId("bad-link").textContent = "";
  document.title = "Eyeline";
  history.replaceState(null, "", "./");
  byId("question").focus();
  addFiles(blobs);
}

/** Before a question the pace stands among its options, then beside what is written. */
function offerPace() {
  document.querySelector(".options > div").append(pacing);
  pacing.hidden = false;
}

// Evidence
async function verify(run, span, onEvent, signal) {
  const body = {run: run.id, span: span.index, regions: null};
  for await (const event of client.events("/v1/verify", {body, signal}, {again: () => true})) onEvent(event);
}

/** What hiding regions together would do to a span or a range of characters; at once. */
function joint(run, target, regions) {
  return client.json("/v1/joint", {body: {run: run.id, target, regions}});
}

/** Measures it for a span; `tell` hears the fall. Resolves to what went wrong, if anything did. */
async function verifyTogether(run, span, regions, tell) {
  const body = {run: run.id, span: span.index, regions, together: true};
  for await (const event of client.events("/v1/verify", {body}, {again: () => true})) {
    if (event.event === "together") tell(event.actual);
    if (event.event === "error") return event.message;
  }
  return "";
}

/** Asks again with regions hidden; the answers stand side by side in `place`. */
async function askWithout(run, regions, place) {
  const names = regions.map(k => run.regions[k]).join(", "), before = run.answer.trim();
  const title = make("h2", "", `The same question without ${names}`), verdict = set(make("p", "verdict", "Asking …"), {role: "status"});
  const now = make("dd"), thinking = make("p", "thinking"), abort = new AbortController();
  const folder = make("details", "", make("summary", "", "Thinking"), thinking), end = button("Stop", "pill", () => abort.abort());
  const pictures = make("div", "pictures-row", ...run.images.map((image, i) => hide(image, run.start.regions[i], regions)));
  const answers = make("dl", "", make("dt", "", "With everything"), make("dd", "", before), make("dt", "", "Without"), now);
  const section = make("section", "compare", title, pictures, verdict, answers, folder, end);
  place.prepend(section);
  section.scrollIntoView({block: "nearest"});
  const startOver = () => { now.textContent = thinking.textContent = ""; return true; };
  let finished = false;
  try {
    const body = {run: run.id, regions, stream: true};
    for await (const chunk of client.events("/v1/ask-without", {body, signal: abort.signal}, {again: startOver})) {
      if (chunk.error) throw new Error(chunk.error.message);
      const event = chunk.eyeline;
      if (event?.event === "text") {
        const part = event.channel === "answer" ? now : thinking;
        part.textContent = (part.textContent + event.text).trimStart();
      }
      if (event?.event === "error") verdict.textContent = event.message;
      finished ||= event?.event === "done" && event.reason !== "error";
    }
    if (finished) {
      const same = now.textContent.trim() === before;
      verdict.textContent = same ? "The answer stays the same." : "The answer changes.";
      section.classList.add(same ? "same" : "changed");
    }
  } catch (error) {
    verdict.textContent = error.name === "AbortError" ? "Stopped." : error.message;
  }
  end.remove();
}

/** Lets the model think again without regions; both traces stand side by side in `place`. */
function thinkAgain(run, regions, place) {
  return rethink(client, run, regions, place, run.images.map((image, i) => hide(image, run.start.regions[i], regions)));
}

function hide(image, labels, regions) {
  const cells = labels.flatMap((line, y) => line.flatMap((k, x) => regions.includes(k) ? [draw("rect", {x, y, width: 1.02, height: 1.02})] : []));
  const cover = draw("svg", {viewBox: `0 0 ${labels[0].length} ${labels.length}`, preserveAspectRatio: "none", "aria-hidden": "true"}, ...cells);
  return make("div", "hiding", Object.assign(make("img"), {src: image.url, alt: "The image as it was asked again"}), cover);
}

// Runs
async function openRun(id) {
  opening?.abort();
  const mine = opening = new AbortController(), {signal} = mine;
  try {
    const run = await client.json(`/v1/runs/${encodeURIComponent(id)}`, {signal});
    const blobs = await Promise.all(run.images.map(path => client.blob(path, {signal})));
    signal.throwIfAborted();
    begin(mine);
    open({prompt: run.prompt, images: blobs.map(blob => ({blob, url: URL.createObjectURL(blob)})), claims: run.claims, isLive: Boolean(run.running), id});
    history.replaceState(null, "", `./?run=${encodeURIComponent(id)}`);
    await fill(mine, () => catchUp(id, 0, signal, view.take, run));
  } catch (error) {
    if (error.name === "AbortError") return;
    const words = error.status === 404 ? `There is no run “${id.slice(0, 60)}” here: it was deleted, or the link is not whole. “Runs” lists what is kept.` : error.message;
    if (!root.hidden) { failure.textContent = words; return; }
    byId("bad-link").textContent = words;
    history.replaceState(null, "", "./");
  }
}

const pictureUrl = async path => URL.createObjectURL(await client.blob(path));

async function listRuns(more = false) {
  listing?.abort(); // a later search has begun
  const {signal} = listing = new AbortController(), query = byId("search").value.trim();
  const filter = new URLSearchParams({query, limit: "20", ...(more && next ? {before: next} : {})});
  try {
    const page = await client.json(`/v1/runs?${filter}`, {signal});
    signal.throwIfAborted();
    next = page.next;
    if (!more) byId("run-list").replaceChildren();
    byId("run-list").append(...page.runs.map(listItem));
    byId("no-runs").textContent = query ? "No run matches." : "No run was saved yet.";
  } catch (error) {
    if (error.name === "AbortError") return;
    byId("no-runs").textContent = error.message;
  }
  byId("no-runs").hidden = byId("run-list").childElementCount > 0;
  byId("older").hidden = !next;
}

function listItem(run) {
  const picture = Object.assign(make("img"), {alt: ""}), when = typeof run.created === "number" ? new Date(run.created * 1000) : new Date(run.created);
  if (run.images) pictureUrl(`/v1/runs/${encodeURIComponent(run.id)}/images/0`).then(url => { picture.src = url; }, () => {});
  const answer = run.answer?.trim() || (run.reason ? "no answer" : "not finished");
  const choose = button("", "run", () => { byId("runs").close(); openRun(run.id); });
  choose.append(picture, make("b", "", run.prompt), make("span", "", `${answer} · ${when.toLocaleString()}`));
  const remove = set(button("Delete", "pill", async () => {
    if (remove.textContent === "Delete") { remove.textContent = "Sure?"; return; }
    try {
      await client.json(`/v1/runs/${encodeURIComponent(run.id)}`, {method: "DELETE"});
    } catch (error) {
      if (error.status !== 404) { remove.textContent = error.message; return; } // 404: it is gone already
    }
    item.remove();
    byId("no-runs").hidden = byId("run-list").childElementCount > 0;
    byId("search").focus();
  }), {"aria-label": `Delete the run “${run.prompt.slice(0, 60)}”`});
  remove.addEventListener("blur", () => { remove.textContent = "Delete"; });
  const item = make("li", "", choose, remove);
  return item;
}

async function download(file) {
  downloads.open = false;
  try {
    const {id} = view.run, blob = await client.blob(`/v1/runs/${encodeURIComponent(id)}/${file}`), url = URL.createObjectURL(blob);
    Object.assign(make("a"), {href: url, download: `${id}-${file}`}).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    failure.textContent = error.message;
  }
}

async function copyLink() {
  const address = new URL(`./?run=${encodeURIComponent(view.run.id)}`, location.href).href;
  try {
    await navigator.clipboard.writeText(address);
    link.textContent = "Link copied";
    setTimeout(() => { link.textContent = "Copy link"; downloads.open = false; }, 1200);
  } catch {
    failure.textContent = address; // no clipboard over plain http from elsewhere
  }
}

async function showGallery() {
  try {
    const {scenes} = await client.json("/v1/gallery"), {name, reads} = await served();
    byId("gallery").replaceChildren(...scenes.map(scene => {
      const picture = Object.assign(make("img"), {alt: `Drawn scene: ${scene.family}`}), choose = button("", "", () => compose(Promise.all([client.blob(scene.image)]), scene.prompt));
      pictureUrl(scene.image).then(url => { picture.src = url; }, () => {});
      choose.append(make("span", "thumb", picture), make("small", "", scene.prompt));
      if (scene.note) choose.append(make("small", "note", scene.note));
      return make("li", "", choose);
    }));
    byId("gallery-section").hidden = !scenes.length;
    byId("reads").textContent = reads ? `${name} is a small model that reads only ${reads}. Of other images it says so, and answers wrongly.` : "";
  } catch (error) {
    problem.textContent = error.message;
  }
}

async function showModel() {
  byId("model").textContent = (await served()).name;
}

function askKey(message) {
  const dialog = byId("key"), input = byId("key-input");
  byId("key-problem").textContent = message;
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise(resolve => dialog.addEventListener("close", () => resolve(dialog.returnValue === "cancel" ? null : input.value.trim() || null), {once: true}));
}

// Input
byId("ask").addEventListener("submit", event => { event.preventDefault(); ask(); });
byId("question").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
});
byId("files").addEventListener("change", event => { addFiles([...event.target.files]); event.target.value = ""; });
addEventListener("paste", event => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length || byId("runs").open) return;
  event.preventDefault();
  if (byId("welcome").hidden) compose([], "");
  addFiles(files);
});
addEventListener("dragover", event => { event.preventDefault(); byId("drop").classList.add("over"); });
addEventListener("dragleave", event => { if (!event.relatedTarget) byId("drop").classList.remove("over"); });
addEventListener("drop", event => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  const files = [...event.dataTransfer.files];
  if (!files.length) return;
  if (byId("welcome").hidden) compose([], "");
  addFiles(files);
});
byId("new-question").addEventListener("click", () => compose([], ""));
byId("open-runs").addEventListener("click", () => { byId("search").value = ""; byId("runs").showModal(); listRuns(); });
byId("close-runs").addEventListener("click", () => byId("runs").close());
byId("runs").addEventListener("close", () => listing?.abort());
byId("older").addEventListener("click", () => listRuns(true));
byId("search").addEventListener("input", () => listRuns());
byId("key-cancel").addEventListener("click", () => byId("key").close("cancel"));
addEventListener("click", event => { if (!event.target.closest?.(".downloads")) downloads.open = false; });
addEventListener("popstate", () => location.reload());

const wanted = new URLSearchParams(location.search).get("run");
offerPace();
showState();
showModel().catch(() => {});
showAudit(client, byId("audit")).catch(() => {});
showGallery();
if (wanted) openRun(wanted);
