// The control API as this page uses it: reads, changes with a token, and the stream of events and
// samples. It draws nothing; who asks for the token is told to it.

const TOKEN = "evenkeel-token";
// No answer takes longer; a stream says something every second.
const DEADLINE_MS = 5000;
const SILENCE_MS = 20000;
const AGAIN_MS = [500, 1000, 2000, 5000];
const EVENT_STREAM_LIMIT = 1 << 20;

export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

// What a field of a request can carry, and every token is: visible ASCII.
const SHAPE = /^[\x21-\x7e]+$/;

// `askForToken(why)` resolves to a token, or to null when there is none to be had.
let askForToken = async () => null;
let asking = null;
// Given, and not yet known to be right: only what was accepted once is kept.
let offered = null;
// Somebody was asked and gave none: nobody is asked again before `mayAsk`.
let declined = false;

export function tokensFrom(ask) {
  askForToken = ask;
}

export function wasDeclined() {
  return declined;
}

// Somebody has clicked on what needs a token.
export function mayAsk() {
  declined = false;
}

export function get(path) {
  return call("GET", path);
}

export function post(path, body) {
  return call("POST", path, body);
}

async function call(method, path, body) {
  const response = await withToken((headers) => {
    const init = { method, headers: { ...headers, accept: "application/json" }, cache: "no-store" };
    if (body !== undefined) {
      init.headers["content-type"] = "application/json";
      init.body = JSON.stringify(body);
    }
    return fetch(path, { ...init, signal: AbortSignal.timeout(DEADLINE_MS) });
  });
  return response.json();
}

// Sends, and when a token is missing or wrong asks for one and sends again, until there is none.
async function withToken(send) {
  for (;;) {
    const token = tokenNow();
    const response = await send(token ? { authorization: `Bearer ${token}` } : {});
    if (response.ok) {
      if (token && token === offered) {
        sessionStorage.setItem(TOKEN, token);
        offered = null;
      }
      return response;
    }
    const refused = await reason(response);
    if (refused.status !== 401) throw refused;
    // Somebody else may have been given one meanwhile.
    if (token !== tokenNow()) continue;
    sessionStorage.removeItem(TOKEN);
    offered = null;
    if (declined) throw refused;
    asking ??= askAbout(refused.message).finally(() => (asking = null));
    if (!(await asking)) throw refused;
  }
}

function tokenNow() {
  const kept = sessionStorage.getItem(TOKEN);
  return offered ?? (SHAPE.test(kept ?? "") ? kept : null);
}

async function askAbout(why) {
  const given = await askForToken(why);
  offered = SHAPE.test(given ?? "") ? given : null;
  declined = offered === null;
  return offered !== null;
}

async function reason(response) {
  try {
    const { error } = await response.json();
    return new Refused(response.status, error.code, error.message);
  } catch {
    return new Refused(response.status, "", `status ${response.status}`);
  }
}

// Follows the stream for ever. `on`: an object with `event`, `sample` and `missed`, each given the
// data, and `open` and `lost`.
export async function follow(on) {
  let last = null;
  let failures = 0;
  for (;;) {
    try {
      await stream(last, on, (id) => {
        if (id) last = id;
        failures = 0;
      });
      on.lost("the stream has ended");
    } catch (error) {
      on.lost(error.message);
    }
    const pause = AGAIN_MS[Math.min(failures++, AGAIN_MS.length - 1)];
    await new Promise((resolve) => setTimeout(resolve, pause * (0.8 + 0.4 * Math.random())));
  }
}

async function stream(last, on, heard) {
  const abort = new AbortController();
  let silence = setTimeout(() => abort.abort(), SILENCE_MS);
  try {
    const response = await withToken((headers) => {
      const all = { ...headers, accept: "text/event-stream" };
      if (last) all["last-event-id"] = last;
      const from = last ? "" : "&since=0";
      return fetch(`/api/v1/events?samples=true${from}`, { headers: all, cache: "no-store", signal: abort.signal });
    });
    on.open();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let buffered = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE_MS);
      buffered += value.replaceAll("\r", "");
      const messages = buffered.split("\n\n");
      buffered = messages.pop();
      if (buffered.length > EVENT_STREAM_LIMIT) throw new Error("a message without an end");
      for (const message of messages) heard(take(message, on));
    }
  } finally {
    clearTimeout(silence);
    abort.abort();
  }
}

// One message of text/event-stream; returns its id.
function take(message, on) {
  const fields = { event: "message", data: "", id: "" };
  for (const line of message.split("\n")) {
    const [, name, value] = /^(event|data|id): ?(.*)$/.exec(line) ?? [];
    if (name === "data") fields.data += value;
    else if (name) fields[name] = value;
  }
  if (fields.data) on[fields.event]?.(JSON.parse(fields.data));
  return fields.id;
}
