// The server's API as the page uses it: a key kept for the session, errors as sentences, event streams as iterators, and
// patience: while the server cannot be reached, every request waits and is made again.

const KEY = "eyeline-key";
const RETRY_MS = [500, 1000, 2000, 3000]; // between tries; then every 3 s
const GATEWAYS = [502, 503, 504]; // what stands before a server answers so when that is gone

/** What the server refused: `message` is a sentence, `status` that of HTTP. */
class RefusedError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The connection ended in the middle of a stream. */
export class LostError extends Error {}

/** `askKey(message)` resolves to the key that somebody types, or null; `tell(reachable)` hears of every change. */
export function createClient(askKey, tell) {
  const waiting = new Set(); // requests that found no server
  let asking = null;

  /** What a server answers, as soon as there is one; its paths begin where the page does, which may be below a prefix. */
  async function reach(path, options) {
    const request = {};
    try {
      for (let tries = 0; ; tries += 1) {
        const response = await fetch(`.${path}`, options).catch(error => {
          if (options.signal?.aborted || !(error instanceof TypeError)) throw error;
        });
        if (response && (!GATEWAYS.includes(response.status) || isJson(response))) return response;
        waiting.add(request);
        tell(false);
        await pause(RETRY_MS[Math.min(tries, RETRY_MS.length - 1)], options.signal);
      }
    } finally {
      if (waiting.delete(request) && !waiting.size) tell(true);
    }
  }

  async function request(path, {body, ...options} = {}) {
    for (;;) {
      const key = sessionStorage.getItem(KEY), headers = {};
      if (key) headers.Authorization = `Bearer ${key}`;
      if (body !== undefined) headers["Content-Type"] = "application/json";
      const response = await reach(path, {...options, headers, body: body === undefined ? undefined : JSON.stringify(body),
        method: options.method ?? (body === undefined ? "GET" : "POST")});
      if (response.ok) return response;
      const message = await sentence(response);
      if (response.status !== 401) throw new RefusedError(message, response.status);
      if (sessionStorage.getItem(KEY) !== key) continue; // another request has asked meanwhile
      asking ??= askKey(key ? message : "").finally(() => { asking = null; });
      const typed = await asking;
      if (!typed) throw new RefusedError(message, response.status);
      sessionStorage.setItem(KEY, typed);
    }
  }

  /** A whole answer, read by `read`; asked for again where the connection ends in the middle of it. */
  async function whole(path, options, read) {
    for (;;) {
      const response = await request(path, options);
      try {
        return await read(response);
      } catch (error) {
        if (options?.signal?.aborted || !(error instanceof TypeError)) throw error;
        await pause(RETRY_MS[0], options?.signal);
      }
    }
  }
  const json = (path, options) => whole(path, options, response => response.json());
  const blob = (path, options) => whole(path, options, response => response.blob());

  /**
   * The JSON of each `data:` line, to the end. `onComment` gets comments, such as the place in the queue. Where the
   * connection ends before: the request is made again if `again()` is true, otherwise a `LostError` is thrown.
   */
  async function* events(path, options, {onComment = () => {}, again = () => false} = {}) {
    for (;;) {
      const response = await request(path, options);
      let over = false;
      try {
        for await (const line of lines(response.body)) {
          if (line.startsWith(":")) onComment(line.slice(1).trim());
          if (!line.startsWith("data:")) continue;
          const data = line.slice(5).trim();
          if (data === "[DONE]") return;
          const event = JSON.parse(data);
          over ||= isLast(event);
          yield event;
        }
      } catch (error) {
        if (options.signal?.aborted || !(error instanceof TypeError)) throw error;
      }
      if (over) return;
      if (!again()) throw new LostError("The connection to the server was lost.");
      await pause(RETRY_MS[0], options.signal);
    }
  }

  return {json, blob, events};
}

const isJson = response => Boolean(response.headers.get("Content-Type")?.startsWith("application/json"));

/** Whether nothing but `[DONE]` may follow: an error, or the end of a run or a verification. */
const isLast = event => Boolean(event.error) || ["done", "error"].includes(event.event) || event.eyeline?.event === "done";

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  try {
    for (;;) {
      const {value, done} = await reader.read();
      if (done) return;
      const parts = (buffer + value).split(/\r?\n/);
      buffer = parts.pop();
      yield* parts;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

export const pause = (ms, signal) => new Promise((resolve, reject) => {
  signal?.throwIfAborted();
  const stop = () => { clearTimeout(timer); reject(signal.reason); };
  const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
  signal?.addEventListener("abort", stop, {once: true});
});

async function sentence(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered with ${response.status} ${response.statusText}.`;
  }
}
