// The timeline of events, newest first.

import { clock, el, icon } from "./dom.js";

const KEPT = 200;

// Kind of event: its shape and the word for it.
const KINDS = {
  started: ["up", "started"],
  dns_joined: ["plus", "joined"],
  dns_left: ["minus", "left"],
  dns_reweighted: ["scale", "weight changed"],
  dns_many: ["name", "many changes"],
  dns_held_back: ["warning", "held back"],
  dns_rejected: ["warning", "record refused"],
  dns_stale: ["warning", "DNS stale"],
  dns_recovered: ["up", "DNS recovered"],
  backend_up: ["up", "recovered"],
  backend_down: ["down", "down"],
  backend_ejected: ["ejected", "ejected"],
  backend_drained: ["drained", "drained"],
  backend_undrained: ["up", "undrained"],
  weight_set: ["scale", "weight set"],
  weight_cleared: ["scale", "weight cleared"],
  failed_over: ["over", "failed over"],
  certificate_loaded: ["key", "certificate swapped"],
  certificate_failed: ["key", "certificate refused"],
  certificate_expiring: ["key", "certificate ends soon"],
  acme_obtained: ["key", "certificate issued"],
  acme_renewed: ["key", "certificate renewed"],
  acme_failed: ["key", "no certificate issued"],
  reloaded: ["turn", "reloaded"],
  reload_refused: ["warning", "reload refused"],
  drain_begun: ["drained", "draining"],
  drain_taken_back: ["up", "drain taken back"],
  refresh_asked: ["name", "DNS asked"],
  log_level_set: ["note", "log level set"],
};

const list = document.getElementById("timeline");
document.getElementById("warnings-only").addEventListener("change", (event) => {
  list.classList.toggle("warnings-only", event.target.checked);
});

export function addEvent(event) {
  const [shape, word] = KINDS[event.kind] ?? [event.severity === "warning" ? "warning" : "note", event.kind.replaceAll("_", " ")];
  add(shape, word, event, event.backend ?? event.service ?? event.name ?? "");
}

// A gap: events are missing here.
export function addGap(words) {
  add("note", "gap", { kind: "gap", severity: "info", at: new Date().toISOString(), text: words }, "");
}

function add(shape, word, event, whose) {
  const item = el("li", { "data-kind": event.kind, "data-severity": event.severity },
    icon(shape), el("b", {}, word), el("time", { datetime: event.at }, clock(event.at)),
    el("span", { class: "whose" }, whose), el("span", { class: "text" }, event.text));
  list.prepend(item);
  while (list.childElementCount > KEPT) list.lastChild.remove();
}

// What was there before the page is not read aloud; what comes now is.
export function caughtUp() {
  list.setAttribute("aria-busy", "false");
}
