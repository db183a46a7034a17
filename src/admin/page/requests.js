// "Why did this request go there?": sampled requests with their steps, and a question about a URL.

import { get, mayAsk } from "./api.js";
import { clock, el, icon, keyed, milliseconds, NONE, percent } from "./dom.js";

export function drawRequests(samples) {
  const place = document.getElementById("requests");
  place.querySelector(":scope > .empty")?.remove();
  if (!samples.length) return place.replaceChildren(el("p", { class: "empty" }, "None yet."));
  // One that is open stays open while others come.
  keyed(place, samples, (s) => `${s.at} ${s.request_id} ${s.path}`, makeRequest, () => {});
}

function makeRequest(sample) {
  const failed = sample.status >= 500 || sample.status === 0;
  return el("details", { class: "request", "data-tone": failed ? "bad" : null },
    el("summary", {},
      el("time", { datetime: sample.at }, clock(sample.at)),
      el("span", { class: "line" }, el("b", {}, sample.method), ` ${sample.host ?? ""}${sample.path}`),
      el("span", { class: "outcome" }, icon(failed ? "ejected" : "up"), sample.status ? `${sample.status}` : "client gone"),
      el("span", { class: "to" }, sample.backend ?? "nobody"),
      el("span", { class: "took" }, milliseconds(sample.duration_ms ?? null))),
    steps([...sample.why, sample.attempts > 1 && `${sample.attempts} attempts`, sample.request_id && `X-Request-Id ${sample.request_id}`]));
}

function steps(lines) {
  return el("ol", { class: "why" }, ...lines.filter(Boolean).map((line) => el("li", {}, line)));
}

export function noSamples(words) {
  document.getElementById("requests").replaceChildren(el("p", { class: "empty" }, words));
}

document.getElementById("explain").addEventListener("submit", async (event) => {
  event.preventDefault();
  const place = document.getElementById("explanation");
  const url = document.getElementById("explain-url").value.trim();
  if (!url) return;
  mayAsk();
  try {
    place.replaceChildren(...explanation(await get(`/api/v1/explain?url=${encodeURIComponent(url)}`)));
  } catch (error) {
    place.replaceChildren(el("p", { class: "empty", "data-tone": "bad" }, `No explanation: ${error.message}`));
  }
});

function explanation(said) {
  const lines = [
    said.listener && `Listener ${said.listener.name}: ${said.listener.why}`,
    said.route ? `Route ${said.route.label}: ${said.route.why}` : "No route matches",
    ...(said.routes_lost ?? []).map((r) => `Not ${r.label}: ${r.why}`),
    said.service && `Service ${said.service}${said.snapshot ? `, snapshot ${said.snapshot.number}` : ""}`,
    said.tier && `Tier ${said.tier.priority}: ${said.tier.why}`,
    ...(said.next ?? []).map((n) => `Next on worker ${n.worker}: ${n.backend ?? "nobody"}`),
  ];
  const candidates = (said.backends ?? []).map((b) => el("li", { "data-pickable": b.pickable ? "yes" : "no" },
    icon(b.pickable ? "up" : "ejected"), el("b", {}, b.id), el("span", {}, ` ${percent(b.share ?? null)} · ${b.state ?? NONE} · ${b.why}`)));
  return [el("p", { class: "verdict" }, said.outcome), steps(lines), el("ul", { class: "candidates" }, ...candidates)];
}
