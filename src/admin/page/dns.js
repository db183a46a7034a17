// A service's DNS panel: which name, who answered and when, how long that holds, what came of all
// questions, and what the last answers changed.

import { attribute, clock, el, icon, keyed, NONE, number, span, text } from "./dom.js";

export function makeDns(refresh) {
  const fact = (name, id) => el("div", { class: `fact ${id}` }, el("dt", {}, name), el("dd"));
  return el("section", { class: "dns", "aria-label": "DNS" },
    el("p", { class: "dns-name" }, icon("name"), el("span", { class: "kind" }), el("code")),
    el("p", { class: "badges" }),
    el("dl", {}, fact("Resolver", "resolver"), fact("Age of the answer", "age"), fact("TTL left", "ttl"),
      fact("Asked again in", "next"), fact("Endpoints", "endpoints")),
    el("p", { class: "detail", hidden: true }),
    el("div", { class: "dns-foot" },
      el("ul", { class: "results", "aria-label": "Results of all questions" }),
      el("details", {}, el("summary", {}, "Last changes"), el("ol", { class: "journal" })),
      el("button", { type: "button", class: "quiet", onclick: refresh }, "Ask now")));
}

// `dns`: of this service, undefined while that is not known; for a static service there is none.
export function drawDns(panel, discover, dns) {
  const $ = (selector) => panel.querySelector(selector);
  text($(".kind"), discover.kind === "static" ? "static" : discover.kind.toUpperCase());
  text($("code"), discover.name ?? "endpoints of the configuration");
  for (const part of panel.querySelectorAll("dl, .badges, .dns-foot")) part.hidden = !dns;
  if (!dns) return;
  badges($(".badges"), dns);
  text($(".resolver dd"), dns.server ?? dns.servers[0] ?? "of resolv.conf");
  text($(".age dd"), dns.age_seconds === null ? "no answer yet" : span(dns.age_seconds));
  drawTtl($(".ttl dd"), dns);
  text($(".next dd"), span(dns.next_query_in_seconds));
  text($(".endpoints dd"), dns.unlisted ? `${dns.endpoints}, ${dns.unlisted} unlisted` : number(dns.endpoints));
  keyed($(".results"), dns.results, (r) => `${r.qtype} ${r.result}`, () => el("li", {}, el("span"), el("b")), (node, r) => {
    attribute(node, "data-tone", ["ok", "nodata"].includes(r.result) ? null : "warn");
    text(node.firstChild, `${r.qtype} ${r.result}`);
    text(node.lastChild, number(r.count));
  });
  const said = [dns.detail, dns.held_back && `Held back: ${dns.held_back}`, dns.rotating].filter(Boolean).join(". ");
  attribute($(".detail"), "hidden", said ? null : "");
  text($(".detail"), said);
  text($("summary"), `Last changes (${dns.journal.length})`);
  keyed($(".journal"), dns.journal, (c) => c.number, makeChange, () => {});
}

function badges(place, dns) {
  const all = [
    dns.stale && ["bad", `stale for ${span(dns.stale_seconds)}`],
    dns.held_back && ["warn", "removal held back"],
    dns.rotating && ["warn", "answers rotate"],
    !dns.stale && dns.age_seconds !== null && ["good", "fresh"],
  ].filter(Boolean);
  keyed(place, all, ([, words]) => words.split(" ")[0], () => el("span", { class: "badge" }, icon("note"), el("span")), (node, [tone, words]) => {
    attribute(node, "data-tone", tone);
    attribute(node.firstChild.firstChild, "href", `#i-${tone === "good" ? "up" : "warning"}`);
    text(node.lastChild, words);
  });
}

function drawTtl(place, dns) {
  if (!place.firstChild) place.append(el("span"), el("span", { class: "countdown", "aria-hidden": "true" }, el("i")));
  const { ttl_seconds: ttl, ttl_left_seconds: left } = dns;
  text(place.firstChild, ttl === null ? NONE : `${span(left)} of ${span(ttl)}`);
  place.lastChild.firstChild.style.width = ttl ? `${(100 * left) / ttl}%` : "0";
}

// What an answer changed does not change any more.
function makeChange(change) {
  const answer = [
    change.rcode && (change.nodata ? "no such records" : change.rcode),
    change.server && `from ${change.server}`,
    change.ttl_seconds !== null && `TTL ${span(change.ttl_seconds)}`,
    change.transport && `over ${change.transport}`,
    change.truncated && "truncated",
    `${change.records} records, ${change.glue} with glue`,
  ].filter(Boolean);
  const place = (p) => `priority ${p.priority}, weight ${p.weight}`;
  const more = (list, all) => (all > list.length ? [`… and ${all - list.length} more`] : []);
  const lines = [
    ...change.joined.map((e) => `+ ${e.target} ${e.address}: ${place(e)}`),
    ...more(change.joined, change.counts.joined),
    ...change.left.map((e) => `− ${e.target} ${e.address}: ${e.why}`),
    ...more(change.left, change.counts.left),
    ...change.changed.map((e) => `± ${e.target} ${e.address}: ${place(e.from)} → ${place(e.to)}`),
    ...more(change.changed, change.counts.changed),
    ...(change.held_back ? [`held back: ${change.held_back}`] : []),
    ...change.notes,
  ];
  return el("li", {}, el("time", { datetime: change.at }, clock(change.at)), el("span", {}, answer.join(" · ")),
    el("ul", {}, ...lines.map((line) => el("li", {}, line))));
}
