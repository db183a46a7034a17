// "Why did this request go there?": sampled requests with their steps.

import { clock, el, icon, keyed, milliseconds, steps } from "./dom.js";

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

export function noSamples(words) {
  document.getElementById("requests").replaceChildren(el("p", { class: "empty" }, words));
}
