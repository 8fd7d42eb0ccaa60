// The connection to the server, and small helpers for drawing.

const BACKOFF_MS = [500, 15_000];
const STEADY_MS = 5_000; // a connection that held so long resets the back-off
const PROBE_MS = 10_000; // how often the page looks whether the server is there
const GRACE_MS = 900; // a shorter silence is not worth a word
const NOTICE_MS = 6_000;

export const $ = (id) => document.getElementById(id);
export const calm = matchMedia("(prefers-reduced-motion: reduce)");
export const byName = new Intl.Collator("en", { numeric: true }).compare;

export function make(tag, attributes = {}, ...content) {
  const el = document.createElement(tag);
  for (const name in attributes) el.setAttribute(name, attributes[name]);
  el.append(...content);
  return el;
}
export function draw(parent, tag, attributes = {}) {
  const el = parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", tag));
  for (const name in attributes) el.setAttribute(name, attributes[name]);
  return el;
}
export function write(el, text) {
  if (el.textContent !== `${text}`) el.textContent = text;
}
export function mark(el, name, value) {
  if (el.dataset[name] !== value) el.dataset[name] = value;
}
export const stamp = (template) => $(template).content.firstElementChild.cloneNode(true);
export const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
export const address = (...parts) => parts.map((part) => `/${encodeURIComponent(part)}`).join("");
export const clip = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

/** Many calls, one frame. */
export function framed(work) {
  let due = false;
  return () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      work();
    });
  };
}

/** Calls `step` with what grows from 0 to 1, and returns what ends that early. */
export function tween(ms, step, then = () => {}) {
  let frame = 0;
  const began = performance.now();
  const tick = (now) => {
    const t = calm.matches || document.hidden ? 1 : Math.min(1, Math.max(0, (now - began) / ms));
    step(t < 0.5 ? 4 * t ** 3 : 1 - (2 - 2 * t) ** 3 / 2);
    if (t < 1) frame = requestAnimationFrame(tick);
    else then();
  };
  tick(began);
  return () => cancelAnimationFrame(frame);
}

/** Asks the server for something; fails with its reason. */
export async function ask(method, path, body) {
  const headers = body && { "content-type": "application/json" };
  const response = await fetch(path, { method, headers, body: body && JSON.stringify(body) }).catch(() => {
    throw new Error("the server does not answer");
  });
  const text = await response.text();
  let answer = text;
  try {
    answer = JSON.parse(text);
  } catch {} // some answers are plain text, some are empty
  if (!response.ok) throw new Error(answer?.error ?? (text.trim() || `${response.status} ${response.statusText}`));
  return answer;
}

let noticed = 0;
export function notice(text) {
  $("notice").textContent = text;
  clearTimeout(noticed);
  noticed = setTimeout(() => ($("notice").textContent = ""), NOTICE_MS);
}
export const attempt = (asked) => asked.catch((error) => notice(error.message));

// ------------------------------------------------------------------------- connection

const followers = new Set();

/** Follows one value of the server for as long as it is wanted. */
export class Follower {
  seq = null;
  attempts = 0;
  since = Date.now(); // when the connection was lost; null while it is there

  constructor(path, told, { resumes = false, fresh, gone } = {}) {
    Object.assign(this, { path, told, resumes, fresh, gone });
    followers.add(this);
    this.connect();
  }

  connect() {
    const url = new URL(this.path, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    // Behind an attempt that failed there may be another server, whose numbers begin anew.
    const resumes = this.resumes && this.attempts < 2 && this.seq !== null;
    if (resumes) url.searchParams.set("after", this.seq);
    const socket = (this.socket = new WebSocket(url));
    socket.onopen = () => {
      this.opened = Date.now();
      this.since = null;
      if (!resumes) this.fresh?.();
      showLink();
    };
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket) return;
      const message = JSON.parse(data);
      if (message.error !== undefined) notice(message.error);
      if (message.seq !== undefined) this.seq = message.seq;
      if (message.value !== undefined) this.told(message.value);
      if (message.gone) {
        this.close();
        this.gone?.();
      }
    };
    socket.onclose = () => socket === this.socket && this.drop();
  }

  drop() {
    const held = this.since === null ? Date.now() - this.opened : 0;
    if (held > STEADY_MS) this.attempts = 0;
    this.since ??= Date.now();
    this.socket?.close();
    this.socket = null;
    const [first, most] = BACKOFF_MS;
    const pause = Math.min(most, first * 2 ** this.attempts++) * (0.5 + Math.random() / 2);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.connect(), pause);
    showLink();
  }

  hurry() {
    if (this.socket) return;
    clearTimeout(this.timer);
    this.connect();
  }

  close() {
    followers.delete(this);
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
    showLink();
  }
}

let away = null; // since when the registry behind the server says nothing

/** Takes in what the server says of its registry. */
export function registryIs({ live, since }) {
  away = live ? null : since;
  showLink();
}

function showLink() {
  const lost = [...followers].map((follower) => follower.since).filter((since) => since !== null);
  if (away !== null) lost.push(away);
  const since = Math.min(...lost);
  const was = document.body.dataset.connection;
  if (lost.length > 0 && (was !== "live" || Date.now() - since < GRACE_MS) && was !== "stale") return;
  const state = lost.length > 0 ? "stale" : "live";
  mark(document.body, "connection", state);
  write($("link-text"), state === "live" ? "Live" : "Stale");
  write($("link-note"), state === "live" ? "" : `since ${new Date(since).toLocaleTimeString([], { hour12: false })}`);
  if (state === "live" && was !== "live") arrived();
}

/** A socket whose other end has vanished keeps silent; a question does not. */
async function probe() {
  try {
    await fetch("/healthz", { signal: AbortSignal.timeout(PROBE_MS / 2) });
  } catch {
    for (const follower of followers) if (follower.socket) follower.drop();
  }
}
const hurry = () => document.visibilityState === "visible" && followers.forEach((follower) => follower.hurry());

let arrived = () => {};

/** Calls `work` whenever everything is live (again). */
export function whenLive(work) {
  arrived = work;
}

addEventListener("online", hurry);
document.addEventListener("visibilitychange", hurry);
setInterval(showLink, 500);
setInterval(probe, PROBE_MS);
