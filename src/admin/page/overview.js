// The header, and the tiles with what the whole process did in the last 60 seconds.

import { attribute, el, icon, milliseconds, number, span, svg, text, use } from "./dom.js";

const KEPT = 60;

const STATES = { ready: ["up", "ready"], starting: ["trial", "starting"], draining: ["drained", "draining"] };

export function drawStatus(status, now) {
  const $ = (id) => document.getElementById(id);
  const [shape, word] = STATES[status.state] ?? ["note", status.state];
  const state = $("state");
  state.firstElementChild ?? state.replaceChildren(icon(shape), el("span"), el("small"));
  use(state.firstChild, shape);
  attribute(state, "data-state", status.state);
  text(state.children[1], word);
  text(state.children[2], status.unmet.join(" · "));
  text($("version"), status.version);
  text($("uptime"), span((now - Date.parse(status.started_at)) / 1000));
  drawCertificate($("certificate"), status.certificate);
  drawReload($("reload"), status.configuration, now);
}

function drawCertificate(place, certificate) {
  const days = certificate?.days_left;
  attribute(place, "data-tone", days < 7 ? "bad" : days < 21 ? "warn" : null);
  attribute(place, "title", certificate ? `The first that ends: ${certificate.listener}, ${certificate.not_after}` : null);
  if (!certificate) text(place, "none");
  else if (days < 0) text(place, "expired");
  else text(place, days < 2 ? `${Math.floor(days * 24)} h left` : `${Math.floor(days)} days left`);
}

function drawReload(place, configuration, now) {
  const last = configuration.last_reload;
  attribute(place, "data-tone", last?.outcome === "refused" ? "bad" : null);
  attribute(place, "title", last?.error ?? configuration.file);
  text(place, last ? `${last.outcome} ${span((now - Date.parse(last.at)) / 1000)} ago` : "none yet");
}

// --- tiles -------------------------------------------------------------------------------------

const milli = (value) => (value === null ? "–" : milliseconds(value));
const peak = (write) => (values) => (values.length ? `at most ${write(Math.max(...values))}` : "");

const TILES = [
  { id: "requests", name: "Requests/s", of: (s) => s.requests_per_second, write: number },
  { id: "p50", name: "p50", of: (s) => s.p50_ms, write: milli, title: "Half of the requests took no longer" },
  { id: "p99", name: "p99", of: (s) => s.p99_ms, write: milli, title: "99 of 100 requests took no longer" },
  { id: "errors", name: "5xx/s", of: (s) => s.errors_per_second, write: number, tone: (v) => (v > 0 ? "bad" : null) },
  { id: "in-flight", name: "In flight", of: (s) => s.in_flight, write: number },
  { id: "connections", name: "Connections", of: (s) => s.open_connections, write: number, title: "Of clients, open" },
  {
    id: "healthy",
    name: "Healthy",
    of: (s) => s.healthy,
    write: number,
    unit: (s) => ` of ${s.backends}`,
    note: (values) => (values.length ? `at least ${Math.min(...values)}` : ""),
    tone: (v, s) => (v === 0 && s.backends ? "bad" : v < s.backends ? "warn" : null),
  },
];

const samples = [];

// Takes samples, oldest first; one that is there already is not taken again.
export function takeSamples(more) {
  for (const sample of more) {
    const last = samples.at(-1);
    if (!last || Date.parse(sample.at) > Date.parse(last.at)) samples.push(sample);
  }
  samples.splice(0, samples.length - KEPT);
  if (samples.length) drawTiles();
}

export function forgetSamples() {
  samples.length = 0;
}

function drawTiles() {
  const place = document.getElementById("tiles");
  if (!place.firstChild) place.append(...TILES.map(makeTile));
  const now = samples.at(-1);
  for (const [i, tile] of TILES.entries()) {
    const [, figure, note, line] = place.children[i].children;
    const value = tile.of(now);
    text(figure.firstChild, tile.write(value));
    text(figure.lastChild, tile.unit?.(now) ?? "");
    attribute(place.children[i], "data-tone", tile.tone?.(value, now) ?? null);
    const values = samples.map(tile.of).filter((v) => v !== null);
    text(note, (tile.note ?? peak(tile.write))(values));
    drawLine(line, samples.map(tile.of));
  }
}

function makeTile({ id, name, title }) {
  const line = svg("svg", { class: "spark", viewBox: `0 0 ${KEPT - 1} 20`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: "area" }), svg("path", { class: "stroke" }));
  return el("div", { class: "tile", "data-tile": id, title }, el("h2", {}, name),
    el("p", { class: "figure" }, el("span"), el("small")), el("p", { class: "note" }), line);
}

// From zero, the newest at the right; a second without a value is a gap.
function drawLine(place, values) {
  const most = Math.max(...values.map((v) => v ?? 0)) || 1;
  const first = KEPT - values.length;
  let stroke = "";
  let area = "";
  let start = null;
  const close = (end) => {
    if (start !== null) area += `L${end} 20L${start} 20Z`;
    start = null;
  };
  for (const [i, value] of values.entries()) {
    const x = first + i;
    if (value === null) {
      close(x - 1);
      continue;
    }
    const point = `${x} ${(19 - (17 * value) / most).toFixed(2)}`;
    stroke += `${start === null ? "M" : "L"}${point}`;
    area += `${start === null ? "M" : "L"}${point}`;
    start ??= x;
  }
  close(KEPT - 1);
  attribute(place.firstChild, "d", area);
  attribute(place.lastChild, "d", stroke);
}
