// Each service: its figures, its DNS panel, its tiers as lanes with shares, its backends as a table.

import { drawDns, makeDns } from "./dns.js";
import { attribute, clock, el, icon, keyed, milliseconds, NONE, number, percent, span, text, use } from "./dom.js";

// With more than that, a service is opened by hand.
const OPEN_AT_FIRST = 4;
// Seconds over which shares are measured.
const WINDOW = 60;

const SHAPES = { up: "up", passed_over: "passed", ejected: "ejected", trial: "trial", down: "down", drained: "drained" };
const REASONS = {
  unchecked: "not checked yet",
  check_connect: "check: cannot connect",
  check_timeout: "check: no answer in time",
  check_answer: "check: wrong answer",
  failures: "failures in a row",
  success_rate: "low success rate",
  connect: "connects fail",
  by_hand: "drained by hand",
};

// `now`: the server's clock. `commands`: `drain(backend, drained)` and `refresh(name)`.
export function drawServices(services, dns, now, commands) {
  const place = document.getElementById("services");
  place.querySelector(":scope > .empty")?.remove();
  const make = (service) => makeService(service, services.indexOf(service) < OPEN_AT_FIRST, commands);
  keyed(place, services, (s) => s.name, make, (node, service) => {
    drawSummary(node.querySelector("summary"), service);
    if (!node.open) return;
    drawDns(node.querySelector(".dns"), service.discover, dns.find((d) => d.name === service.discover.name && d.services.includes(service.name)));
    drawLanes(node.querySelector(".lanes"), service, now);
    drawTable(node, service, commands);
  });
}

function makeService(service, open, commands) {
  const figure = (name, id) => el("span", { class: `figure ${id}` }, el("b"), el("small", {}, name));
  const column = (name) => el("th", { scope: "col", role: "columnheader" }, name);
  return el("details", { class: "panel service", "data-service": service.name, open },
    el("summary", {}, el("h2", {}, service.name), el("span", { class: "chips" }),
      el("span", { class: "figures" }, figure("healthy", "healthy"), figure("req/s", "rate"), figure("p50", "p50"),
        figure("p99", "p99"), figure("in flight", "in-flight"), figure("5xx ever", "errors"))),
    makeDns(() => commands.refresh(service.discover.name)),
    el("div", { class: "lanes" }),
    el("table", { role: "table", class: "backends" },
      el("caption", {}, `Backends of ${service.name}`),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" },
        ...["Backend", "State", "Reason", "Last check", "Weight", "In flight", "Req/s", "Drain"].map(column))),
      el("tbody", { role: "rowgroup" })),
    el("p", { class: "empty", hidden: true }, "Nobody is there."));
}

function drawSummary(summary, service) {
  const chips = [service.strategy, service.sticky && "sticky", service.upstream, ...service.routes].filter(Boolean);
  keyed(summary.querySelector(".chips"), chips, (c) => c, (c) => el("span", { class: "chip" }, c), () => {});
  const set = (id, value, tone = null) => {
    const figure = summary.querySelector(`.${id}`);
    text(figure.firstChild, value);
    attribute(figure, "data-tone", tone);
  };
  const { healthy, total } = service;
  set("healthy", `${healthy} of ${total}`, healthy === 0 ? "bad" : healthy < total ? "warn" : null);
  set("rate", number(service.requests_per_second));
  set("p50", milliseconds(service.p50_ms));
  set("p99", milliseconds(service.p99_ms));
  set("in-flight", service.queue?.waiting ? `${number(service.in_flight)} + ${service.queue.waiting} waiting` : number(service.in_flight));
  set("errors", number(service.errors));
}

// --- lanes -------------------------------------------------------------------------------------

function drawLanes(place, service, now) {
  keyed(place, service.tiers, (t) => t.priority, makeLane, (lane, tier) => {
    attribute(lane, "data-serving", tier.serving && !tier.last_resort ? "yes" : "no");
    const [head, list] = lane.children;
    use(head.firstChild, tier.last_resort ? "warning" : tier.serving ? "up" : "note");
    text(head.children[1], `Tier ${tier.priority}`);
    text(head.children[2], role(service, tier));
    text(head.children[3], distance(tier, service.snapshot.changed_at, now));
    // The longest bar fills nine tenths; shares are comparable within a tier.
    const most = Math.max(...tier.backends.flatMap((b) => [b.share.configured, b.share.measured ?? 0]), 0.01) / 0.9;
    keyed(list, tier.backends, identity, makeBar, (bar, backend) => drawBar(bar, backend, most));
  });
}

function makeLane() {
  return el("section", { class: "lane" },
    el("h3", {}, icon("note"), el("span"), el("span", { class: "role" }), el("small")), el("ul", { class: "bars" }));
}

function role({ tiers }, tier) {
  if (tier.last_resort) return "nobody can serve; tried all the same";
  if (tier.serving) return tier.part < 1 ? `serving ${percent(tier.part)} of requests` : "serving";
  return tiers.some((t) => t.serving && !t.last_resort) ? "standby" : "nobody can serve";
}

// How far the tier is from an even keel; what is measured follows a change within its window.
function distance(tier, changedAt, now) {
  const measured = tier.backends.filter((b) => b.share.measured !== null);
  if (!tier.serving || !measured.length) return "";
  const since = (now - Date.parse(changedAt)) / 1000;
  if (since < WINDOW) return `changed ${span(since)} ago; measured over the last ${WINDOW} s`;
  const points = Math.max(...measured.map((b) => Math.abs(b.share.measured - b.share.configured))) * 100;
  return `furthest from its share: ${points.toFixed(1)} points`;
}

function makeBar(backend) {
  const bar = (kind) => el("span", { class: `bar ${kind}`, "aria-hidden": "true" }, el("i"));
  return el("li", { "data-bar": backend.id },
    el("span", { class: "who" }, icon("up"), el("span")), bar("configured"), el("span", { class: "share" }, el("b"), el("small", {}, "configured")),
    bar("measured"), el("span", { class: "share" }, el("b"), el("small", {}, "measured")));
}

function drawBar(node, backend, most) {
  const [who, configured, should, measured, is] = node.children;
  attribute(node, "data-state", backend.state);
  use(who.firstChild, SHAPES[backend.state] ?? "note");
  text(who.lastChild, shortName(backend));
  attribute(who, "title", `${backend.target} ${backend.address}, ${backend.state.replace("_", " ")}`);
  configured.firstChild.style.width = `${(100 * backend.share.configured) / most}%`;
  measured.firstChild.style.width = `${(100 * (backend.share.measured ?? 0)) / most}%`;
  text(should.firstChild, percent(backend.share.configured));
  text(is.firstChild, percent(backend.share.measured));
}

// The first label of a name, the address where there is none.
function shortName({ target, address }) {
  return isAddress(target) ? address : target.split(".")[0];
}

// Where nothing points to it by name, the target is the address.
function isAddress(target) {
  return /^[\d.]+$/.test(target) || target.includes(":");
}

function identity(backend) {
  return `${backend.id} ${backend.number} ${backend.priority}`;
}

// --- the table ---------------------------------------------------------------------------------

function drawTable(node, service, commands) {
  const backends = service.tiers.flatMap((t) => t.backends);
  attribute(node.querySelector(":scope > .empty"), "hidden", backends.length ? "" : null);
  node.querySelector("table").hidden = !backends.length;
  keyed(node.querySelector("tbody"), backends, identity, (b) => makeRow(b, commands), drawRow);
}

function makeRow(backend, commands) {
  const cell = (name, ...children) => el("td", { role: "cell", "data-label": name }, ...children);
  const row = el("tr", { role: "row", "data-backend": backend.id },
    el("th", { scope: "row", role: "rowheader" }, el("b"), el("small")),
    cell("State", el("span", { class: "state" }, icon("up"), el("span"))),
    cell("Reason", el("span"), el("small")), cell("Last check", el("span"), el("small")), cell("Weight"), cell("In flight"), cell("Req/s"),
    cell("Drain", el("button", { type: "button", onclick: () => commands.drain(row.backend, !row.backend.drained) })));
  return row;
}

function drawRow(row, backend) {
  row.backend = backend;
  const [name, state, reason, check, weight, inFlight, rate, drain] = row.children;
  attribute(row, "data-state", backend.state);
  const named = !isAddress(backend.target);
  text(name.firstChild, named ? backend.target.replace(/\.$/, "") : backend.address);
  text(name.lastChild, `${named ? `${backend.address} · ` : ""}tier ${backend.priority}`);
  use(state.firstChild.firstChild, SHAPES[backend.state] ?? "note");
  text(state.firstChild.lastChild, backend.state.replace("_", " "));
  text(reason.firstChild, backend.reason ? (REASONS[backend.reason] ?? backend.reason) : NONE);
  const until = backend.out_for_seconds ? `for another ${span(backend.out_for_seconds)}` : null;
  text(reason.lastChild, backend.reason ? [detail(backend), until].filter(Boolean).join("; ") : "");
  drawCheck(check, backend);
  const { srv, override, effective } = backend.weight;
  text(weight, override === null ? number(effective) : `${effective} (by hand; DNS: ${srv})`);
  text(inFlight, number(backend.in_flight));
  text(rate, number(backend.requests_per_second));
  const button = drain.firstChild;
  text(button, backend.drained ? "Undrain" : "Drain");
  attribute(button, "aria-label", `${backend.drained ? "Undrain" : "Drain"} ${backend.target} ${backend.address}`);
}

// Its latest event without what the row says already.
function detail(backend) {
  if (backend.drained || !backend.detail) return null;
  const words = backend.detail.replace(`${backend.address} is ${backend.state.replace("_", " ")}: `, "");
  return words.replace(new RegExp(`^${backend.reason},? ?`), "");
}

function drawCheck(cell, { last_check: check, check_failures: failures }) {
  text(cell.firstChild, check ? `${check.passed ? "passed" : (REASONS[check.reason] ?? "failed").replace("check: ", "")}` : "none");
  text(cell.lastChild, check ? `at ${clock(check.at)}${failures ? `; ${number(failures)} failed ever` : ""}` : "");
}
