// Shows the tree of servers, live.
//
//   1 the connection   2 the tree   3 what happened   4 deeds
//
// Whatever comes from the server reaches the page only as text.

const NOTICE_MS = 6_000;
const GRACE_MS = 900; // a shorter silence is not worth a word
const RETRY_MS = 1_000; // when the browser has given up
const WORDS = 100;

const $ = (id) => document.getElementById(id);
const write = (el, text) => el.textContent !== text && (el.textContent = text);
const mark = (el, name, value) => el.dataset[name] !== value && (el.dataset[name] = value);
const clock = (time) => new Date(time).toLocaleTimeString([], { hour12: false });

let noticed = 0;
function notice(text) {
  write($("notice"), text);
  clearTimeout(noticed);
  noticed = setTimeout(() => write($("notice"), ""), NOTICE_MS);
}

// ------------------------------------------------------------------- 1 the connection

let lost = Date.now(); // when the connection was lost; null while it is there

function connect() {
  const events = new EventSource("/tree");
  events.onmessage = ({ data }) => {
    lost = null;
    show(JSON.parse(data));
    showLink();
  };
  events.onopen = () => {
    lost = null;
    showLink();
  };
  events.onerror = () => {
    lost ??= Date.now();
    if (events.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS);
  };
}

function showLink() {
  const was = document.body.dataset.connection;
  if (lost !== null && was !== "stale" && Date.now() - lost < GRACE_MS) return;
  mark(document.body, "connection", lost === null ? "live" : "stale");
  write($("link-text"), lost === null ? "Live" : "Stale");
  write($("link-note"), lost === null ? "" : `since ${clock(lost)}`);
}

// --------------------------------------------------------------------------- 2 the tree

const MOODS = { RUNNING: "well", ERROR: "bad", DOWN: "bad", STUCK: "bad", FAILED: "bad", STOPPING: "bad" }; // others are busy
const NOTE = $("note").textContent;
const servers = new Map(); // path -> {el, state, since, start, more}

function show(top) {
  write($("registry"), top.registry);
  const standsBy = top.targets.length > 0 && top.targets.every((target) => !target.elected);
  write($("note"), standsBy ? "Another server looks after these. This one stands by, and takes over when that one is gone." : NOTE);
  const seen = new Set();
  const state = top.status === 200 ? "RUNNING" : top.status === 503 ? "PENDING" : "ERROR";
  const root = draw([], { target: top.label, state, since: top.since, restarts: 0, pid: top.pid, below: top }, seen);
  if (root.parentNode !== $("tree")) $("tree").append(root);
  for (const [path, { el }] of servers) {
    if (seen.has(path)) continue;
    el.remove();
    servers.delete(path);
  }
  const all = [...servers.values()];
  const well = all.filter((server) => server.state === "RUNNING").length;
  write($("well"), well === all.length ? `All ${well} servers run` : `${well} of ${all.length} servers run`);
  mark($("well"), "is", all.some((server) => MOODS[server.state] === "bad") ? "bad" : "well");
}

/** Draws a server and those below, which are drawn as they last were while it says nothing. */
function draw(path, report, seen) {
  const key = path.join(" ");
  seen.add(key);
  let server = servers.get(key);
  if (!server) {
    server = { el: $("server").content.firstElementChild.cloneNode(true), state: null };
    servers.set(key, server);
    server.el.querySelector(".deeds").onclick = ({ target }) => target.dataset.deed && act(path, target.dataset.deed);
  }
  const { el } = server;
  const part = (selector) => el.querySelector(`:scope > article ${selector}`);
  const mood = MOODS[report.state] ?? "busy";
  mark(el, "server", report.target);
  mark(el, "state", report.state);
  mark(el, "mood", mood);
  write(part("b"), report.target.replace(/^http:\/\//, ""));
  write(part(".state"), report.state);
  server.since = Date.parse(report.since);
  server.more = [report.pid && `process ${report.pid}`, report.restarts && `restarted ${report.restarts}×`];
  server.start = report.nextStart && Date.parse(report.nextStart);
  const { waitsFor, lastError } = report;
  const trouble = waitsFor ? `waits for ${waitsFor}` : lastError && `${clock(lastError.at)} ${lastError.what}`;
  write(part(".trouble"), ["RUNNING", "PENDING"].includes(report.state) ? "" : trouble || "");
  const forced = report.below?.forced ?? null;
  for (const button of el.querySelectorAll(":scope > article button")) {
    const { deed } = button.dataset;
    const answers = report.below !== null;
    button.hidden = {
      fail: !answers || forced !== null,
      heal: !answers || forced === null,
      kill: path.length === 0 || !answers,
      crash: !report.pid || path.length === 0,
      provision: !["DOWN", "FAILED", "WAITING"].includes(report.state),
    }[deed];
    button.setAttribute("aria-label", `${button.textContent}: ${report.target}`);
  }
  if (server.state !== report.state) {
    if (server.state) moved(el, report, mood);
    server.state = report.state;
  }
  const below = el.querySelector(":scope > .below");
  if (report.below) {
    report.below.targets.forEach((target, at) => {
      const child = draw([...path, target.target], target, seen);
      if (below.children[at] !== child) below.insertBefore(child, below.children[at] ?? null);
    });
  } else {
    for (const known of servers.keys()) if (known.startsWith(`${key} `)) seen.add(known);
  }
  age(server);
  return el;
}

function moved(el, report, mood) {
  el.classList.remove("moved");
  void el.offsetWidth; // so that the animation begins anew
  el.classList.add("moved");
  say(report, mood);
}

function age({ el, since, start, more }) {
  const seconds = Math.max(0, Math.round((Date.now() - since) / 1000));
  const time = seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
  const pause = start && Math.ceil((start - Date.now()) / 1000);
  const next = pause > 0 && `starts in ${pause} s`;
  write(el.querySelector(":scope > article .facts"), [`for ${time}`, ...more, next].filter(Boolean).join(" · "));
}

// ------------------------------------------------------------------------ 3 what happened

function say({ target, state, lastError }, mood) {
  const item = document.createElement("li");
  const [time, name] = [document.createElement("span"), document.createElement("b")];
  time.textContent = `${clock(Date.now())} `;
  name.textContent = state;
  item.append(time, `${target.replace(/^http:\/\//, "")} is `, name);
  if (mood === "bad" && lastError) item.append(`: ${lastError.what}`);
  item.dataset.mood = mood;
  $("log").prepend(item);
  while ($("log").children.length > WORDS) $("log").lastChild.remove();
}

// ------------------------------------------------------------------------------- 4 deeds

async function act(path, deed) {
  try {
    const body = JSON.stringify({ path, deed });
    const response = await fetch("/act", { method: "POST", headers: { "content-type": "application/json" }, body });
    if (response.ok) return;
    const answer = await response.json().catch(() => null);
    notice(answer?.error ?? `${response.status} ${response.statusText}`);
  } catch {
    notice("the server does not answer");
  }
}

connect();
setInterval(showLink, 300);
setInterval(() => servers.forEach(age), 1_000);
