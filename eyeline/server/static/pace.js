// The pace of a live run: what comes faster than a person reads is kept and shown at a readable pace, text and heat
// together; what comes slower is shown at once. Why these numbers: docs/server.md.

const CHARACTERS_PER_S = 40;
export const BEAT_MS = 500; // after a span: its heat moves there before the next one's text begins
const BEHIND_MS = 1000; // of text and heat still to be shown: worth a button

/** How long a piece of text takes to be read. */
export const readingMs = text => text.length / CHARACTERS_PER_S * 1000;

/** `show(event)` gets every event in order, as soon as `paced()` allows; `tell(behind)` hears whether much is kept. */
export function createPace(show, paced, tell) {
  let queue = [], due = null, timer = 0, hurry = false, behind = false, waiting = [];
  const cost = event => event.event === "text" ? readingMs(event.text) : event.event === "span" ? BEAT_MS : 0;

  /** A span goes right after its own text, before text of later ones that came in while it was attributed. */
  function push(event) {
    const after = event.event === "span" ? queue.findLastIndex(other => other.event !== "text" || other.start < event.end) + 1 : queue.length;
    queue.splice(after, 0, event);
    go();
  }

  function go() {
    clearTimeout(timer);
    while (queue.length) {
      const now = performance.now(), takes = cost(queue[0]);
      if (paced() && !hurry) {
        if (due > now) { timer = setTimeout(go, Math.ceil(due - now)); break; }
        if (takes) due = Math.max(due ?? now, now - BEAT_MS) + takes; // a slow stream has paid for its beats
      }
      show(queue.shift());
    }
    const rest = queue.reduce((total, event) => total + cost(event), 0);
    if (behind !== (behind = queue.length > 0 && (behind || rest > BEHIND_MS))) tell(behind);
    if (!queue.length) for (const resolve of waiting.splice(0)) resolve();
  }

  /** Another run begins: what is kept of this one is let go. */
  function clear() {
    [queue, due, hurry] = [[], null, false];
    go();
  }
  /** Shows all that is kept, and what still comes of this run, at once. */
  function jump() {
    hurry = true;
    go();
  }
  /** Resolves when nothing is kept. */
  const drained = () => queue.length ? new Promise(resolve => waiting.push(resolve)) : Promise.resolve();
  return {push, go, clear, jump, drained};
}
