// Evenkeel's dashboard: asks and draws once a second, follows the stream, carries out commands.
//
// `api.js` speaks with the control API, `dom.js` draws elements, each other file one part of the
// page. No framework and no build: what is here is what the browser gets.

import { follow, get, mayAsk, post, tokensFrom, wasDeclined } from "./api.js";
import { attribute, el, span, text } from "./dom.js";
import "./explain.js";
import { drawStatus, forgetSamples, takeSamples } from "./overview.js";
import { drawRequests, noSamples } from "./requests.js";
import { drawServices } from "./services.js";
import { addEvent, addGap, caughtUp } from "./timeline.js";

const EVERY_MS = 1000;
// A look that takes long is taken less often: no more than a fifth of the time is spent on it.
const RARITY = 4;
const SLOWEST_MS = 10000;
// What is so much older than it should be is called old.
const OLD_MS = 2500;
// Commands that failed, of which so many are shown.
const FAILURES = 3;

const $ = (id) => document.getElementById(id);

// --- looks -------------------------------------------------------------------------------------

// The server's clock minus ours, in milliseconds.
let offset = 0;
let status = null;
let drawnAt = null;
// From one look to the next.
let every = EVERY_MS;
let trouble = null;
let boot = null;

async function look() {
  const begun = performance.now();
  try {
    const [now, services, dns] = await Promise.all(["status", "services", "dns"].map((what) => get(`/api/v1/${what}`)));
    offset = Date.parse(now.now) - Date.now();
    if (now.boot !== boot) forgetSamples();
    boot = now.boot;
    status = now;
    takeSamples(now.history.samples);
    drawServices(services, dns, Date.parse(now.now), { drain, refresh });
    document.title = titleOf(now);
    drawnAt = Date.now();
    trouble = null;
  } catch (error) {
    trouble = error.message;
  }
  drawAge();
  return performance.now() - begun;
}

function titleOf({ state, sample }) {
  const counts = sample ? `${sample.healthy} of ${sample.backends} healthy` : state;
  return state === "ready" ? `${counts} · evenkeel` : `${state} · ${counts} · evenkeel`;
}

async function lookAgainAndAgain() {
  for (;;) {
    const took = document.hidden ? 0 : await look();
    every = Math.min(Math.max(EVERY_MS, took * (RARITY + 1)), SLOWEST_MS);
    await pause(every - took);
  }
}

async function samplesAgainAndAgain() {
  for (;;) {
    try {
      if (!document.hidden) drawRequests((await get("/api/v1/explain/samples")).samples);
    } catch (error) {
      if (error.status === 501) return noSamples("This version keeps no samples.");
    }
    await pause(2 * EVERY_MS);
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

// Says how old what is shown is: at each look, and between looks that fail.
function drawAge() {
  if (status) drawStatus(status, Date.now() + offset);
  const age = drawnAt === null ? null : Date.now() - drawnAt;
  const old = age === null || age > every + OLD_MS;
  const live = $("live");
  attribute(live, "data-live", old ? "no" : "yes");
  text(live, age === null ? "connecting" : old ? "not live" : "live");
  document.body.classList.toggle("old", old && age !== null);
  $("banner").hidden = !old || (age === null && !trouble);
  // Read aloud when the reason changes, not each second.
  const why = wasDeclined() ? "it needs the token, and was given none." : `${trouble ?? "no answer"}. Trying again.`;
  text($("trouble"), $("banner").hidden ? "" : `Not live: ${why}`);
  $("give-token").hidden = !wasDeclined();
  text($("age"), age === null ? "" : `What you see is ${span(age / 1000)} old.`);
}

// --- commands ----------------------------------------------------------------------------------

async function drain(backend, drained) {
  const verb = drained ? "drain" : "undrain";
  const words = drained
    ? "It gets no new request, but those that a cookie leads to it, and finishes what it has. The others of its tier share its part."
    : "It can be picked again.";
  const name = `${backend.target} (${backend.address})`;
  const what = `${drained ? "Drain" : "Undrain"} ${name}`;
  if (!(await confirm(`${what}?`, words, drained ? "Drain it" : "Undrain it"))) return;
  await command(what, `/api/v1/backends/${encodeURIComponent(backend.id)}/${verb}`);
}

async function refresh(name) {
  await command(`Ask DNS for ${name}`, "/api/v1/dns/refresh", { name });
}

async function command(what, path, body) {
  mayAsk();
  try {
    await post(path, body);
    await look();
  } catch (error) {
    failed(what, error.message);
  }
}

// Beside the dialogs: a command that fails late must not speak in the one that is open by then.
function failed(what, why) {
  const line = el("p", {}, el("span", {}, `Not done: ${what}. ${why}`),
    el("button", { type: "button", onclick: () => line.remove() }, "I see"));
  const place = $("failures");
  place.append(line);
  while (place.childElementCount > FAILURES) place.firstChild.remove();
}

// --- dialogs -----------------------------------------------------------------------------------

// Resolves when it closes; Escape is a no. The browser keeps the focus inside and gives it back.
function answered(dialog) {
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

// A question that comes while another one is open is answered with no.
async function confirm(title, words, yes) {
  if ($("confirm").open) return false;
  text($("confirm-title"), title);
  text($("confirm-text"), words);
  text($("confirm-yes"), yes);
  return answered($("confirm"));
}

tokensFrom(async (why) => {
  text($("token-why"), `Evenkeel says: ${why}`);
  text($("token-file"), `/run/evenkeel/token-${location.port || 80}`);
  const field = $("token");
  field.value = "";
  const given = (await answered($("ask-token"))) ? field.value.trim() : "";
  field.value = "";
  return given || null;
});

// Enter in the field means yes, although "Cancel" comes first.
$("token").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  event.target.form.requestSubmit($("token-yes"));
});

$("give-token").addEventListener("click", () => {
  mayAsk();
  look();
});

// --- theme -------------------------------------------------------------------------------------

const THEMES = ["system", "light", "dark"];

function setTheme(theme) {
  localStorage.setItem("evenkeel-theme", theme);
  attribute(document.documentElement, "data-theme", theme === "system" ? null : theme);
  text($("theme"), `Theme: ${theme}`);
}

setTheme(THEMES.find((theme) => theme === localStorage.getItem("evenkeel-theme")) ?? "system");
$("theme").addEventListener("click", () => {
  const now = THEMES.indexOf(localStorage.getItem("evenkeel-theme"));
  setTheme(THEMES[(now + 1) % THEMES.length]);
});

// --- start -------------------------------------------------------------------------------------

setInterval(drawAge, EVERY_MS);
document.addEventListener("visibilitychange", () => document.hidden || look());
lookAgainAndAgain();
samplesAgainAndAgain();
follow({
  open: caughtUpSoon,
  lost: () => {},
  event: addEvent,
  sample: (sample) => takeSamples([sample]),
  missed: ({ boot: speaks }) => {
    if (boot !== null) addGap(speaks === boot ? "Events in between are no longer kept." : "Another process answers now.");
  },
});

// The journal comes first and at once; a moment later what comes is new.
function caughtUpSoon() {
  setTimeout(caughtUp, EVERY_MS);
}
