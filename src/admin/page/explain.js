// "Where would this request go?": the question as a form, and the whole answer.

import { get, mayAsk } from "./api.js";
import { el, icon, number, percent, span, steps } from "./dom.js";

const form = document.getElementById("explain");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const place = document.getElementById("explanation");
  const query = question(new FormData(form));
  if (!query.has("url")) return;
  mayAsk();
  try {
    place.replaceChildren(...explanation(await get(`/api/v1/explain?${query}`)));
  } catch (error) {
    place.replaceChildren(el("p", { class: "empty", "data-tone": "bad" }, `No explanation: ${error.message}`));
  }
});

// As the control API is asked: what is left empty is not said; each line of headers is one.
function question(fields) {
  const query = new URLSearchParams();
  for (const [name, value] of fields) {
    const values = name === "header" ? value.split("\n") : [value];
    for (const one of values.map((v) => v.trim()).filter(Boolean)) query.append(name, one);
  }
  return query;
}

function explanation(said) {
  const lines = [
    said.listener && `Listener ${said.listener.name}: ${said.listener.why}`,
    said.route ? `Route ${said.route.label}: ${said.route.why}` : said.routes_lost.length && "No route matches",
    ...said.routes_lost.map((route) => `Not ${route.label}: ${route.why}`),
    said.service && `Service ${said.service} (${said.strategy})${snapshot(said.snapshot)}`,
    ...said.preferences.map(preference),
    said.tier && `Tier ${said.tier.priority}: ${said.tier.why}`,
    ...(said.tiers.length > 1 ? said.tiers.map(tier) : []),
    ...said.next.map(next),
  ];
  return [
    el("p", { class: "verdict" }, said.outcome),
    steps(lines),
    el("ul", { class: "candidates" }, ...said.backends.map(candidate), ...said.withdrawn.map(withdrawn)),
  ];
}

function snapshot(it) {
  if (!it) return "";
  return `, snapshot ${it.number}, ${it.age_seconds === null ? "none yet" : `${span(it.age_seconds)} old`}`;
}

function preference({ kind, of, leads_to: ids, why }) {
  const name = kind === "cookie" ? "Cookie" : "Key";
  return `${name} ${of}${ids.length ? ` leads to ${ids.join(", then ")}` : ""}: ${why}`;
}

function tier({ priority, pickable, backends, part }) {
  const takes = part === null ? "" : `, takes ${percent(part)}`;
  return `Tier ${priority}: ${pickable} of ${backends} can be picked${takes}`;
}

// Without a backend the reason says why: chance, nobody, or a worker that does not answer.
function next({ worker, backend, priority, why }) {
  return `Next on worker ${worker}: ${backend ? `${backend} (tier ${priority}: ${why})` : why}`;
}

function candidate(backend) {
  const figures = [
    `tier ${backend.priority}`,
    `weight ${backend.weight}`,
    `share ${percent(backend.share)}`,
    backend.chance !== null && `chance ${percent(backend.chance)}`,
    `${number(backend.in_flight)} in flight`,
    `${backend.state.replace("_", " ")}: ${backend.why}`,
  ];
  return el("li", { "data-pickable": backend.pickable ? "yes" : "no" },
    icon(backend.pickable ? "up" : "ejected"), el("b", {}, backend.id), el("span", {}, ` ${figures.filter(Boolean).join(" · ")}`));
}

function withdrawn({ id, since_seconds: since, in_flight: left }) {
  return el("li", { "data-pickable": "no" }, icon("minus"), el("b", {}, id),
    el("span", {}, ` withdrawn ${span(since)} ago · ${number(left)} in flight`));
}
