// Elements, numbers and times: what every part of the page draws with. Text from outside becomes
// text nodes and attributes only, never markup.

const SVG = "http://www.w3.org/2000/svg";

// An element. `props`: `class`, `on…` listeners, anything else is an attribute.
export function el(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

export function icon(name) {
  return svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));
}

// Writes only what changes, so that selections, focus and screen readers are left alone.
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

export function attribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

export function use(svgIcon, name) {
  attribute(svgIcon.firstChild, "href", `#i-${name}`);
}

// Makes the children of `parent` those of `items`, one each, in their order. A child is made once
// for each key and told of every change; what has the focus stays where it is.
export function keyed(parent, items, key, make, update) {
  const had = (parent.keyed ??= new Map());
  const wanted = new Map();
  for (const item of items) {
    const name = key(item);
    if (!wanted.has(name)) wanted.set(name, [had.get(name) ?? make(item), item]);
  }
  for (const [name, node] of had) if (!wanted.has(name)) node.remove();
  let place = parent.firstChild;
  for (const [node, item] of wanted.values()) {
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
  parent.keyed = new Map([...wanted].map(([name, [node]]) => [name, node]));
}

// What led to something, step by step; what is not there is left out.
export function steps(lines) {
  return el("ol", { class: "why" }, ...lines.filter(Boolean).map((line) => el("li", {}, line)));
}

// --- numbers -----------------------------------------------------------------------------------

export const NONE = "–";

export function number(value) {
  if (value === null || value === undefined) return NONE;
  if (value === 0) return "0";
  if (value >= 10000) return `${(value / 1000).toFixed(value >= 100000 ? 0 : 1)} k`;
  return value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1);
}

export function milliseconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value >= 1000) return `${(value / 1000).toFixed(value >= 10000 ? 0 : 1)} s`;
  return `${value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2)} ms`;
}

export function percent(share) {
  return share === null || share === undefined ? NONE : `${(share * 100).toFixed(1)} %`;
}

// A time span in at most two units: "41 d", "3 h 5 min", "12 s".
export function span(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 && s < 600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  const hours = Math.floor((s % 86400) / 3600);
  return s < 10 * 86400 && hours ? `${Math.floor(s / 86400)} d ${hours} h` : `${Math.floor(s / 86400)} d`;
}

export function clock(at) {
  const time = new Date(at);
  return Number.isNaN(time.getTime()) ? at : time.toLocaleTimeString("en-GB");
}
