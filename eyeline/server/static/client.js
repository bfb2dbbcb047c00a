// The server's API as the page uses it: a key kept for the session, errors as sentences, event streams as iterators.

const KEY = "eyeline-key";

/** `askKey(message)` resolves to the key that somebody types, or null. */
export function createClient(askKey) {
  let asking = null;

  async function request(path, {body, ...options} = {}) {
    for (;;) {
      const key = sessionStorage.getItem(KEY), headers = {};
      if (key) headers.Authorization = `Bearer ${key}`;
      if (body !== undefined) headers["Content-Type"] = "application/json";
      const response = await fetch(path, {...options, headers, body: body === undefined ? undefined : JSON.stringify(body),
        method: options.method ?? (body === undefined ? "GET" : "POST")});
      if (response.ok) return response;
      const message = await sentence(response);
      if (response.status !== 401) throw new Error(message);
      if (sessionStorage.getItem(KEY) !== key) continue; // another request has asked meanwhile
      asking ??= askKey(key ? message : "").finally(() => { asking = null; });
      const typed = await asking;
      if (!typed) throw new Error(message);
      sessionStorage.setItem(KEY, typed);
    }
  }

  const json = async (path, options) => (await request(path, options)).json();
  const blob = async path => (await request(path)).blob();

  /** The JSON of each `data:` line, until `[DONE]` or the end; `onComment` gets comments, such as the place in the queue. */
  async function* events(path, options, onComment = () => {}) {
    const response = await request(path, options), reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffer = "";
    try {
      for (;;) {
        const {value, done} = await reader.read();
        if (done) return;
        const lines = (buffer + value).split(/\r?\n/);
        buffer = lines.pop();
        for (const line of lines) {
          if (line.startsWith(":")) onComment(line.slice(1).trim());
          if (!line.startsWith("data:")) continue;
          const data = line.slice(5).trim();
          if (data === "[DONE]") return;
          yield JSON.parse(data);
        }
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  return {json, blob, events};
}

async function sentence(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered with ${response.status} ${response.statusText}.`;
  }
}
