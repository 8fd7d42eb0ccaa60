// The page: what the server tells, drawn.

const PAST_MS = [60_000, 250_000]; // how much of the past is shown, at least and at most
const GRACE_MS = 900; // a shorter silence is not worth a word
const SILENCE_MS = 4_000; // the server tells four times a second
const NOTICE_MS = 6_000;
const RETRY_MS = 2_000;

const $ = (id) => document.getElementById(id);
const write = (el, text) => {
  if (el.textContent !== `${text}`) el.textContent = text;
};
const mark = (el, name, value) => {
  if (el.dataset[name] !== value) el.dataset[name] = value;
};
const make = (tag, attributes = {}, ...content) => {
  const el = document.createElement(tag);
  for (const name in attributes) el.setAttribute(name, attributes[name]);
  el.append(...content);
  return el;
};

const rate = (n) => n.toFixed(n < 99.95 ? 1 : 0);
const whole = new Intl.NumberFormat("en").format;
const millis = (n) => (n < 9.95 ? n.toFixed(1) : n.toFixed(0));
const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

let past = []; // a second each: at, rate, ceiling
let picture = null;

// ------------------------------------------------------------------------- connection

let heard = Date.now();
let lost = Date.now(); // since when; null while there is a connection

function connect() {
  const events = new EventSource("events");
  events.addEventListener("past", ({ data }) => {
    past = JSON.parse(data);
  });
  events.addEventListener("picture", ({ data }) => {
    [heard, lost] = [Date.now(), null];
    picture = JSON.parse(data);
    show();
  });
  events.onerror = () => {
    lost ??= Date.now();
    // It comes back by itself, unless it was refused.
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS);
    showLink();
  };
}

function showLink() {
  if (lost === null && Date.now() - heard > SILENCE_MS) lost = heard;
  const since = [lost, picture?.stale].filter((at) => at != null);
  const worth = since.filter((at) => Date.now() - at > GRACE_MS);
  const state = worth.length > 0 ? "stale" : picture === null ? "connecting" : "live";
  if (since.length > 0 && worth.length === 0) return;
  mark(document.body, "connection", state);
  write($("link-text"), { stale: "Stale", live: "Live", connecting: "Connecting" }[state]);
  const at = new Date(Math.min(...worth));
  write($("link-note"), state === "stale" ? `since ${at.toLocaleTimeString([], { hour12: false })}` : "");
}

// ------------------------------------------------------------------------- the picture

function show() {
  const { project, registry, trouble, hashes, coins, open } = picture;
  document.title = `${rate(picture.rate)}/s · ${project}`;
  write($("project"), project);
  write($("registry"), registry);
  mark(document.body, "store", trouble ? "away" : "there");
  write($("trouble"), trouble ? `The store cannot be read: ${trouble}` : "");
  write($("rate"), rate(picture.rate));
  write($("rate-note"), note());
  write($("hashes"), whole(hashes ?? 0));
  write($("coins"), whole(coins));
  write($("open"), whole(open));
  $("command").hidden = picture.scalable || picture.command === null;
  write($("command").lastElementChild, picture.command ?? "");
  for (const part of picture.parts) showPart(part);
  remember();
  draw();
  showLink();
}

const instances = (name) => picture.parts.find(({ part }) => part === name).instances;

/** What holds it up. */
function note() {
  const rngs = instances("rng").length;
  const workers = count(instances("worker").length, "worker");
  if (picture.ceiling === null) return `${workers}; no rng holds them up`;
  if (rngs === 0) return `${workers}, and no rng`;
  const share = picture.rate / picture.ceiling;
  const ceiling = `${count(rngs, "rng")} can do ${rate(picture.ceiling)}`;
  return share > 0.93 ? `${workers}, and the ceiling is reached: ${ceiling}` : `${workers}; ${ceiling}`;
}

function remember() {
  const { now: at, rate, ceiling, trouble } = picture;
  if (trouble) return;
  if (past.length > 0 && past.at(-1).at > at) past = [];
  const last = past.at(-1);
  if (!last || Math.floor(at / 1000) > Math.floor(last.at / 1000)) past.push({ at, rate, ceiling });
  while (past[0].at < at - PAST_MS[1]) past.shift();
}

// ------------------------------------------------------------------------- who is there

const calls = new Set(["rng", "hasher"]);
const busy = new Set(["rng", "hasher", "worker"]);

function showPart({ part, latency, instances }) {
  const section = $(`part-${part}`) ?? newPart(part);
  const each = section.querySelector(".latency");
  if (latency) {
    each.replaceChildren(
      ...["p50", "p95", "p99"].flatMap((p) => [`${p} `, make("b", {}, `${millis(latency[p])} ms`), "  "]),
    );
  } else write(each, busy.has(part) && instances.length > 0 ? count(instances.length, part) : "");
  write(section.querySelector("output"), instances.filter(({ status }) => status === "up").length);
  section.querySelector(".scale").hidden = !picture.scalable || !busy.has(part);

  const body = section.querySelector("tbody");
  const most = Math.max(...instances.map(({ rate }) => rate), 0.001);
  const gone = new Set(body.children);
  for (const instance of instances) {
    const id = `${part}-${instance.id}`;
    const row = $(id) ?? body.appendChild(newRow(id, part, instance));
    gone.delete(row);
    mark(row, "status", instance.status);
    if (!busy.has(part)) continue;
    write(row.querySelector(".bar span"), rate(instance.rate));
    row.querySelector(".bar").style.setProperty("--share", instance.rate / most);
    for (const cell of row.querySelectorAll("[data-p]")) {
      write(cell, instance.latency ? millis(instance.latency[cell.dataset.p]) : "–");
    }
  }
  for (const row of gone) row.remove();
}

function newPart(part) {
  const section = $("part").content.firstElementChild.cloneNode(true);
  section.id = `part-${part}`;
  section.dataset.part = part;
  write(section.querySelector("h2"), part);
  const heads = ["", ...(busy.has(part) ? ["per second"] : []), ...(calls.has(part) ? ["p50 ms", "p95", "p99"] : [])];
  section.querySelector("thead").append(make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head))));
  for (const button of section.querySelectorAll("button")) {
    const by = Number(button.dataset.by);
    button.setAttribute("aria-label", by > 0 ? `one more ${part}` : `one ${part} fewer`);
    button.onclick = () => scale(part, by);
  }
  // The workers, who may be many, have a column of their own.
  $("parts").append(section);
  return section;
}

function newRow(id, part, { id: name, address, host, pid }) {
  const where = address ?? [host, pid].filter(Boolean).join(" ");
  const row = make("tr", { id });
  row.append(make("td", { title: `${name}, process ${pid ?? "unknown"} on ${host ?? "an unknown host"}` },
    make("i", { "aria-hidden": "true" }), make("code", {}, name.slice(0, 8)), make("small", {}, where)));
  if (busy.has(part)) row.append(make("td", { class: "bar" }, make("span")));
  if (calls.has(part)) row.append(...["p50", "p95", "p99"].map((p) => make("td", { "data-p": p })));
  return row;
}

const wanted = {}; // what was asked for a moment ago and is not to be seen yet

async function scale(part, by) {
  const now = instances(part).filter(({ status }) => status === "up").length;
  const wish = wanted[part] && Date.now() - wanted[part].at < 1500 ? wanted[part].count : now;
  const count = Math.max(0, wish + by);
  wanted[part] = { count, at: Date.now() };
  try {
    const answer = await fetch(`scale/${part}/${count}`, { method: "POST" });
    if (!answer.ok) notice((await answer.text()).trim());
  } catch {
    notice("the server does not answer");
  }
}

let noticed = 0;
function notice(text) {
  write($("notice"), text);
  clearTimeout(noticed);
  noticed = setTimeout(() => write($("notice"), ""), NOTICE_MS);
}

// ------------------------------------------------------------------------- the chart

const MARGIN = { top: 14, right: 4, bottom: 20, left: 30 };
const svg = (tag, attributes, text) => {
  const el = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const name in attributes) el.setAttribute(name, attributes[name]);
  if (text !== undefined) el.textContent = text;
  return el;
};

/** A round number of lines for a scale up to `most`. */
function lines(most) {
  const unit = 10 ** Math.floor(Math.log10(most));
  const step = [0.2, 0.5, 1, 2].map((n) => n * unit).find((step) => most / step <= 5.5);
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, n) => n * step);
}

function draw() {
  const chart = $("chart");
  const { clientWidth: width, clientHeight: height } = chart;
  const now = picture.now;
  const moments = [...past, { at: now, rate: picture.rate, ceiling: picture.ceiling }];
  const most = Math.max(5, ...moments.map(({ rate, ceiling }) => Math.max(rate, Math.min(ceiling ?? 0, rate * 4 + 10)))) * 1.12;
  const span = Math.max(PAST_MS[0], Math.min(PAST_MS[1], now - moments[0].at));
  const x = (at) => width - MARGIN.right - ((now - at) / span) * (width - MARGIN.left - MARGIN.right);
  const y = (rate) => height - MARGIN.bottom - (Math.min(rate, most) / most) * (height - MARGIN.top - MARGIN.bottom);

  const parts = lines(most).flatMap((rate) => [
    svg("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(rate), y2: y(rate) }),
    svg("text", { x: MARGIN.left - 8, y: y(rate) + 4, "text-anchor": "end" }, +rate.toFixed(1)),
  ]);
  const step = span > 130_000 ? 60 : 20; // seconds
  for (let ago = step; ago * 1000 < span - 5000; ago += step) {
    const name = ago % 60 === 0 ? `${ago / 60} min` : `${ago} s`;
    parts.push(svg("text", { x: x(now - ago * 1000), y: height - 4, "text-anchor": "middle" }, `${name} ago`));
  }
  const line = moments.map(({ at, rate }) => `${x(at).toFixed(1)} ${y(rate).toFixed(1)}`).join("L");
  parts.push(svg("path", { class: "area", d: `M${x(moments[0].at)} ${y(0)}L${line}V${y(0)}Z` }));
  parts.push(svg("path", { class: "rate", d: `M${line}` }));
  parts.push(svg("circle", { class: "dot", cx: x(now), cy: y(picture.rate), r: 4 }));
  if (picture.ceiling !== null) {
    let steps = "";
    for (const { at, ceiling } of moments) {
      const to = `${x(at).toFixed(1)} ${y(ceiling ?? most).toFixed(1)}`;
      steps += steps === "" ? `M${to}` : `H${x(at).toFixed(1)}V${y(ceiling ?? most).toFixed(1)}`;
    }
    parts.push(svg("path", { class: "ceiling", d: steps }));
    const name = `ceiling of ${count(instances("rng").length, "rng")}: ${rate(picture.ceiling)}`;
    parts.push(svg("text", { class: "ceiling-name", x: width - MARGIN.right, y: y(picture.ceiling) - 6 }, name));
  }
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.replaceChildren(...parts);
}

addEventListener("resize", () => picture && draw());
setInterval(showLink, 500);
connect();
