// Shows runs, the machines that move them, and the circle of workers, live.
//
//   1 runs   2 the chosen run   3 its states   4 its machines   5 parameters   6 moves
//   7 the circle and its log   8 start
//
// Whatever comes from the server reaches the page only as text.

import { $, Follower, address, ask, attempt, byName, calm, clip, count, draw, framed, make, mark, notice, registryIs, stamp, tween, whenLive, write } from "./link.js";

const MOVE_MS = 750;
const AT_ONCE = 8; // completions under way together
const NAMES = 5; // as many are told of those who have not reported
const MOVES = 16;
const WORDS = 100;
const ROOMY = [60, 300]; // up to so many machines the marks are large, or at least bear numbers
const PILLS = [4, 6]; // up to so many workers have their names written, with room or without
const EXITS = ["aborted", "error", "timed-out"]; // where a run ends before its time

// ----------------------------------------------------------------------------- 1 runs

let runs = null; // by id; null until they are known
const items = new Map(); // id -> {el, lamp, state}

const lamp = ({ state, is_over: over }) => (EXITS.includes(state) && over ? "bad" : over ? "over" : "on");

const drawRuns = framed(() => {
  if (!runs) return;
  for (const [id, { el }] of items) {
    if (Object.hasOwn(runs, id)) continue;
    el.remove();
    items.delete(id);
  }
  const ids = Object.keys(runs).sort(byName);
  ids.forEach((id, at) => {
    let item = items.get(id);
    if (!item) {
      const [light, name, state] = [make("i", { "aria-hidden": true }), make("b", { title: id }, id), make("span")];
      const link = make("a", { href: `#${encodeURIComponent(id)}` }, light, name, state);
      item = { el: make("li", { "data-run": id }, link), link, light, state };
      items.set(id, item);
      $("runs").insertBefore(item.el, $("runs").children[at] ?? null);
    }
    write(item.state, runs[id].state);
    mark(item.light, "is", lamp(runs[id]));
    const [is, was] = [id === run.id, item.link.hasAttribute("aria-current")];
    if (is && !was) item.link.setAttribute("aria-current", "page");
    if (!is && was) item.link.removeAttribute("aria-current");
    if (is && !was) $("runs").scrollLeft = item.el.offsetLeft - 12;
  });
});

/** `{"node1" [1 2], "node2": [3]}`, as EDN or as JSON, as an object. */
function topology(text) {
  const inner = /^\s*\{([^]*)\}\s*$/.exec(text)?.[1];
  const entry = /[\s,]*"([^"]*)"\s*:?\s*\[((?:[\s,]|\d+(?:\.\.\d+)?)*)\][\s,]*/y;
  const nodes = new Map();
  for (let found; inner !== undefined && (found = entry.exec(inner)); ) {
    const [, node, indices] = found;
    if (nodes.has(node)) throw new Error(`node "${node}" is there twice`);
    const ranges = indices.match(/\d+(\.\.\d+)?/g) ?? [];
    nodes.set(node, ranges.flatMap((range) => {
      const [first, last = first] = range.split("..").map(Number);
      if (last - first > 10_000) throw new Error(`${range}: at most 10000 machines are allowed`);
      return Array.from({ length: Math.max(0, last - first + 1) }, (_, n) => first + n);
    }));
    entry.read = entry.lastIndex;
  }
  const rest = inner?.slice(entry.read ?? 0).trim();
  if (rest !== "") throw new Error(`write nodes as {"node1": [1,2,4], "node2": [2]}${rest ? `; this is not: ${clip(rest, 30)}` : ""}`);
  return Object.fromEntries(nodes);
}

$("create").onsubmit = async (event) => {
  event.preventDefault();
  const form = event.target;
  const { id, topology: nodes, states, limit } = Object.fromEntries(new FormData(form));
  const problem = form.querySelector(".problem");
  write(problem, "");
  try {
    const order = { topology: topology(nodes) };
    if (id.trim()) order.id = id.trim();
    if (limit.trim()) order.limit = limit.trim();
    if (states.trim()) order.states = states.split(",").map((state) => state.trim());
    const made = await ask("POST", "/runs", order);
    $("new").open = false;
    form.elements.id.value = "";
    location.hash = encodeURIComponent(made.id);
  } catch (error) {
    write(problem, error.message);
  }
};

// ------------------------------------------------------------------- 2 the chosen run

const run = { id: null, picture: null, follower: null, wish: null };
const path = (...more) => address("runs", run.id, ...more);

/** Looks which run the address names, and follows it while there is one. */
function choose() {
  let id = "";
  try {
    id = decodeURIComponent(location.hash.slice(1));
  } catch {} // no address of ours
  if (!id && runs) {
    const ids = Object.keys(runs).sort(byName);
    id = ids.find((each) => !runs[each].is_over) ?? ids[0] ?? "";
    if (id) history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  }
  if (id !== run.id) {
    run.follower?.close();
    Object.assign(run, { id, picture: null, follower: null, wish: null });
    pick(null);
    $("create").elements.id.value = "";
  }
  const exists = runs !== null && Object.hasOwn(runs, id);
  if (exists && !run.follower) {
    const gone = () => {
      Object.assign(run, { picture: null, follower: null });
      drawRun();
    };
    run.follower = new Follower(path(), (picture) => {
      if (picture.round !== run.picture?.round) run.wish = null;
      run.picture = picture;
      drawRun();
    }, { gone });
  } else if (!exists && runs !== null) {
    run.follower?.close();
    Object.assign(run, { picture: null, follower: null });
  }
  drawRuns();
  drawRun();
}

/** The state that those who report now want to follow. */
function next({ table, state, heading }) {
  return heading ?? run.wish ?? table.steps[state]?.[0] ?? null;
}

const drawRun = framed(() => {
  const { picture } = run;
  $("run").hidden = !picture;
  $("empty").hidden = picture !== null || runs === null;
  if (!picture) {
    const deleted = run.id ? `There is no run ${run.id} (any more).` : "There is no run yet. Create one.";
    write($("empty"), Object.hasOwn(runs ?? {}, run.id) ? "…" : deleted);
    document.title = "Run state";
    track.key = "";
    return;
  }
  const tasks = Object.values(picture.tasks);
  const done = tasks.filter(Boolean).length;
  const to = next(picture);
  const why = picture.moves.at(-1)?.cause;
  document.title = `${picture.state} · ${run.id}`;
  mark($("run"), "lamp", lamp(picture));
  mark($("run"), "state", picture.state);
  write($("run-id"), run.id);
  write($("run-state"), picture.state);
  write($("run-note"), picture.is_over
    ? `Over in round ${picture.round}${why ? (Object.hasOwn(picture.tasks, why) ? `, moved by ${why}` : `: ${why}`) : ""}`
    : `Round ${picture.round}${to ? `, ${picture.heading ? "heading for" : "next"} ${to}` : ""}`);
  $("abort").hidden = $("complete-all").hidden = $("nodes-hint").hidden = picture.is_over;
  $("complete-all").disabled = done === tasks.length;
  drawTrack(picture, done, tasks.length, to);
  drawMachines(picture, done, tasks.length);
  drawMoves(picture);
});

let completing = false;
$("complete-all").onclick = async () => {
  const { id, picture } = run;
  if (completing || !picture) return;
  completing = true;
  const waiting = Object.keys(picture.tasks).filter((task) => !picture.tasks[task]);
  const work = async () => {
    while (waiting.length > 0 && run.id === id && run.picture?.round === picture.round) await complete(waiting.pop());
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  completing = false;
};

/** Asks whether it is meant, and why. */
function sure(title, verb, action, why = null) {
  const dialog = $("sure");
  const [form, problem] = [dialog.querySelector("form"), dialog.querySelector(".problem")];
  write($("sure-title"), title);
  write(form.querySelector("button.bad"), verb);
  write(problem, "");
  $("why").hidden = why === null;
  form.elements.cause.value = why ?? "";
  form.querySelector("[type=button]").onclick = () => dialog.close();
  form.onsubmit = async (event) => {
    event.preventDefault();
    try {
      await action(form.elements.cause.value.trim());
      dialog.close();
    } catch (error) {
      write(problem, error.message);
    }
  };
  dialog.showModal();
  form.elements.cause.select();
}
$("abort").onclick = () => {
  const at = path("abort");
  sure(`Abort ${run.id}?`, "Abort", (cause) => ask("POST", at, { cause: cause || "aborted on the page" }), "aborted on the page");
};
$("delete").onclick = () => {
  const at = path();
  sure(`Delete ${run.id}, with all that belongs to it?`, "Delete", () => ask("DELETE", at));
};

// ----------------------------------------------------------------------- 3 its states

const track = { key: "", of: null, at: null, stop: () => {} };

/** The states in the order in which a run may come to them, without those that are only exits. */
function inARow({ start, steps }) {
  const row = new Set([start]);
  for (const state of row) for (const to of steps[state] ?? []) row.add(to);
  return [...row];
}

function pathBetween(a, b) {
  const from = `M${a.x} ${a.y}`;
  if (!a.exit && !b.exit && Math.abs(a.n - b.n) === 1) return `${from}L${b.x} ${b.y}`;
  if (a.y === b.y) return `${from}Q${(a.x + b.x) / 2} ${a.y - 100} ${b.x} ${b.y}`;
  const middle = (a.y + b.y) / 2;
  if (b.exit) return `${from}C${a.x} ${middle} ${b.x} ${middle} ${b.x} ${b.y}`;
  const bow = a.x > b.x ? -70 : 70; // around the names in between
  return `${from}C${a.x + bow} ${a.y} ${b.x + bow} ${b.y} ${b.x} ${b.y}`;
}

/** Places the states on lines, there and back again if one is too short, and the exits below. */
function layTrack(table, row, loops, width) {
  const svg = $("track");
  const [side, most] = [46, Math.max(2, Math.floor((width - 92) / 84) + 1)];
  const lines = Math.ceil(row.length / most);
  const columns = Math.ceil(row.length / lines);
  const step = (width - 2 * side) / Math.max(1, columns - 1);
  const places = (track.places = new Map());
  row.forEach((state, n) => {
    const [line, column] = [Math.floor(n / columns), n % columns];
    const x = side + (line % 2 ? columns - 1 - column : column) * step;
    places.set(state, { n, x, y: 52 + line * 108, exit: false, end: !table.steps[state]?.length });
  });
  const base = places.get(row.at(-1)).y + 96;
  const exits = (table.exits ?? []).filter((state) => !row.includes(state));
  const gap = Math.max(92, Math.min(112, (width - 60) / exits.length));
  const across = Math.max(1, Math.floor((width - 60) / gap));
  exits.forEach((state, n) => {
    places.set(state, { n: -1, x: 60 + (n % across) * gap, y: base + Math.floor(n / across) * 34, exit: true });
  });
  const height = Math.max(...[...places.values()].map(({ y }) => y)) + (exits.length > 0 ? 24 : 58);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);

  svg.replaceChildren();
  const tip = draw(draw(svg, "defs"), "marker", { id: "turn", viewBox: "0 0 8 8", refX: 17, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" });
  draw(tip, "path", { d: "M0 .6 7 4 0 7.4Z" });
  track.links = row.slice(1).map((state, n) => draw(svg, "path", { class: "link", d: pathBetween(places.get(row[n]), places.get(state)) }));
  track.turns = [...loops].map((loop) => {
    const [from, to] = JSON.parse(loop);
    return { from, to, el: draw(svg, "path", { class: "turn", "marker-end": "url(#turn)", d: pathBetween(places.get(from), places.get(to)) }) };
  });
  track.out = draw(svg, "path", { class: "out" });
  if (exits.length > 0) draw(svg, "text", { class: "legend", y: base + 4 }).textContent = "Exits";
  for (const [state, place] of places) place.el = drawStop(svg, state, place, step);
  track.token = draw(svg, "g", { class: "token" });
  draw(track.token, "circle", { class: "wave", r: 26 });
  draw(track.token, "circle", { class: "face", r: 26 });
  track.arc = draw(track.token, "circle", { class: "arc", r: 26, pathLength: 100, transform: "rotate(-90)" });
  track.count = draw(track.token, "text", { class: "count", y: 2 });
  track.total = draw(track.token, "text", { class: "total", y: 14 });
}

function drawStop(svg, state, { x, y, exit, end }, step) {
  const el = draw(svg, "g", { class: exit ? "stop exit" : "stop", transform: `translate(${x} ${y})`, "data-state": state });
  draw(el, "title").textContent = state;
  if (exit) {
    draw(el, "path", { d: "M0-6.5 6.5 0 0 6.5-6.5 0Z" });
    draw(el, "text", { x: 14, y: 4 }).textContent = clip(state, 13);
    return el;
  }
  draw(el, "circle", { class: "dot", r: end ? 8 : 6.5 });
  if (end) draw(el, "circle", { class: "core", r: 3 });
  const label = draw(el, "text");
  const most = Math.max(6, Math.floor(step / 6.6));
  const cut = state.length > 11 ? state.slice(4).search(/[\s_-]/) + 5 : 0;
  const words = cut > 4 ? [state.slice(0, cut), state.slice(cut)] : [state];
  words.forEach((word, n) => (draw(label, "tspan", { x: 0, y: 27 + n * 14 }).textContent = clip(word, most)));
  for (const [name, value] of [["tabindex", 0], ["role", "button"], ["aria-label", `Let ${state} follow`]]) el.setAttribute(name, value);
  el.onclick = () => wish(state);
  el.onkeydown = (event) => ["Enter", " "].includes(event.key) && (event.preventDefault(), wish(state));
  return el;
}

/** Where the table leaves a choice: what those who complete from now on are to ask for. */
function wish(state) {
  const { picture } = run;
  if (!picture || picture.is_over || state === picture.state) return;
  if (picture.heading && picture.heading !== state) notice(`${run.id} is heading for ${picture.heading} already`);
  else run.wish = state;
  drawRun();
}

function drawTrack(picture, done, total, to) {
  const { table, state, moves, is_over: over } = picture;
  const width = $("run").clientWidth;
  if (track.of !== run.id) Object.assign(track, { of: run.id, at: null, key: "" });
  const row = inARow(table);
  const steps = Object.entries(table.steps).flatMap(([from, all]) => all.map((to) => [from, to]));
  const loops = steps.filter(([from, to]) => row.indexOf(to) !== row.indexOf(from) + 1).map((step) => JSON.stringify(step));
  const key = JSON.stringify([width, table]);
  if (key !== track.key) {
    track.stop();
    layTrack(table, row, loops, width);
    Object.assign(track, { key, at: track.at === null ? null : state });
    putToken(track.places.get(state));
  }
  const left = row.includes(state) ? state : moves.at(-1)?.from; // where it left the row
  const present = row.indexOf(left);
  track.links.forEach((link, n) => {
    mark(link, "is", n < present ? "passed" : n === present && to === row[n + 1] && !over ? "next" : "ahead");
  });
  for (const { from, to: target, el } of track.turns) mark(el, "is", from === state && target === to ? "next" : "ahead");
  for (const [name, { el, n, exit }] of track.places) {
    mark(el, "is", name === state ? "present" : name === to && !over ? "next" : !exit && n < present ? "passed" : "ahead");
  }
  const isExit = !row.includes(state);
  if (isExit && present >= 0) track.out.setAttribute("d", pathBetween(track.places.get(left), track.places.get(state)));
  $("track").setAttribute("aria-label", `State ${state}, ${done} of ${count(total, "machine")} have completed it`);
  if (track.at !== state) travel(track.at, state);
  write(track.count, over ? (isExit ? "×" : "✓") : done);
  write(track.total, over ? "" : `of ${total}`);
  track.arc.style.strokeDasharray = `${over ? 100 : total ? (100 * done) / total : 0} 200`;
  mark(track.token, "over", `${over}`);
  mark(track.token, "exit", `${isExit}`);
}

const putToken = ({ x, y, exit }) => track.token.setAttribute("transform", `translate(${x} ${y})${exit ? " scale(.5)" : ""}`);

/** Along the way that it takes, if it was somewhere before. */
function travel(from, to) {
  track.stop();
  const [a, b] = [track.places.get(from), track.places.get(to)];
  track.at = to;
  if (!a) return putToken(b);
  track.out.setAttribute("d", pathBetween(a, b));
  const [way, length] = [track.out, track.out.getTotalLength()];
  track.token.classList.remove("arrived");
  const step = (t) => {
    const { x, y } = way.getPointAtLength(length * t);
    track.token.setAttribute("transform", `translate(${x} ${y}) scale(${b.exit ? 1 - t / 2 : 1})`);
  };
  track.stop = tween(MOVE_MS, step, () => {
    if (!b.exit) way.removeAttribute("d");
    track.token.classList.add("arrived");
  });
}

// --------------------------------------------------------------------- 4 its machines

const nodes = new Map(); // node -> {el, name, sum, marks, machines: Map(index -> mark)}
const split = (task) => {
  const at = task.lastIndexOf("/");
  return [task.slice(0, at), task.slice(at + 1)];
};

function drawMachines({ tasks, is_over: over }, done, total) {
  const names = Object.keys(tasks);
  const waiting = over ? [] : names.filter((task) => !tasks[task]).sort(byName);
  const more = waiting.length > NAMES ? ` and ${waiting.length - NAMES} more` : "";
  write($("waiting"), over ? count(total, "machine") : waiting.length === 0 ? "All have reported"
    : `${done} of ${total} have reported; waiting for ${waiting.slice(0, NAMES).join(", ")}${more}`);
  mark($("nodes"), "size", total <= ROOMY[0] ? "roomy" : total <= ROOMY[1] ? "snug" : "dense");

  const wanted = new Map();
  for (const task of names) {
    const [node, index] = split(task);
    if (!wanted.has(node)) wanted.set(node, []);
    wanted.get(node).push([Number(index), task]);
  }
  for (const [node, { el }] of nodes) if (!wanted.has(node)) el.remove(), nodes.delete(node);
  [...wanted.keys()].sort(byName).forEach((node, at) => {
    const shown = nodes.get(node) ?? newNode(node);
    if ($("nodes").children[at] !== shown.el) $("nodes").insertBefore(shown.el, $("nodes").children[at] ?? null);
    drawNode(shown, wanted.get(node).sort(([a], [b]) => a - b), tasks, over);
  });
  if (picked && !Object.hasOwn(tasks, picked)) pick(null);
  write($("machine-title"), picked ?? "");
  if (!$("nodes").querySelector('.marks [tabindex="0"]')) $("nodes").querySelector(".marks button")?.setAttribute("tabindex", 0);
}

function newNode(node) {
  const el = stamp("node");
  el.dataset.node = node;
  const shown = { el, sum: el.querySelector("span"), marks: el.querySelector(".marks"), machines: new Map() };
  write(el.querySelector("b"), node);
  el.querySelector("b").title = node;
  shown.marks.ariaLabel = node;
  for (const button of el.querySelectorAll("[data-do]")) {
    const adds = button.dataset.do === "add";
    button.ariaLabel = adds ? `Add a machine to ${node}` : `Remove a machine from ${node}`;
    button.onclick = () => {
      const indices = [...shown.machines.keys()];
      const last = Math.max(...indices);
      const chosen = picked && split(picked)[0] === node ? split(picked)[1] : last;
      attempt(adds ? ask("PUT", path("nodes", node, last + 1)) : ask("DELETE", path("nodes", node, chosen)));
    };
  }
  nodes.set(node, shown);
  return shown;
}

function drawNode({ el, sum, marks, machines }, wanted, tasks, over) {
  const here = new Set(wanted.map(([index]) => index));
  for (const [index, machine] of machines) if (!here.has(index)) machine.remove(), machines.delete(index);
  let done = 0;
  wanted.forEach(([index, task], at) => {
    let machine = machines.get(index);
    if (!machine) {
      machine = make("button", { type: "button", tabindex: -1, "data-machine": task, title: task }, `${index}`);
      machines.set(index, machine);
      marks.insertBefore(machine, marks.children[at] ?? null);
    }
    const is = tasks[task] ? "done" : over ? "idle" : "pending";
    if (machine.dataset.is !== is) {
      machine.dataset.is = is;
      machine.ariaLabel = `${task}, ${is}`;
    }
    if (tasks[task]) done++;
  });
  write(sum, over ? wanted.length : `${done}/${wanted.length}`);
  el.classList.toggle("full", done === wanted.length && !over);
  for (const button of el.querySelectorAll("[data-do]")) button.disabled = over;
}

async function complete(task) {
  const { picture } = run;
  const to = next(picture);
  const el = nodes.get(split(task)[0])?.machines.get(Number(split(task)[1]));
  if (!to) return notice(`nothing follows ${picture.state}`);
  el?.classList.add("busy");
  await attempt(ask("POST", path("nodes", ...split(task)), { current: picture.state, next: to }));
  el?.classList.remove("busy");
}

// A click completes a machine. What there is to complete no more, arrow keys, and a click with the other button pick it.
const machineAt = (target) => target.closest?.("[data-machine]");
$("nodes").addEventListener("click", ({ target }) => {
  const el = machineAt(target);
  if (!el) return;
  if (el.dataset.is === "pending") complete(el.dataset.machine);
  if (el.dataset.is !== "pending" || picked) pick(el.dataset.machine);
});
$("nodes").addEventListener("contextmenu", (event) => {
  if (!machineAt(event.target)) return;
  event.preventDefault();
  pick(machineAt(event.target).dataset.machine);
});
$("nodes").addEventListener("focusin", ({ target }) => {
  if (!machineAt(target)) return;
  $("nodes").querySelectorAll('.marks [tabindex="0"]').forEach((el) => el.setAttribute("tabindex", -1));
  target.setAttribute("tabindex", 0);
});
$("nodes").addEventListener("keydown", (event) => {
  const from = machineAt(event.target);
  const side = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Escape") pick(null);
  if (!from || !side) return;
  event.preventDefault();
  const here = from.getBoundingClientRect();
  let [best, least] = [null, Infinity];
  for (const el of $("nodes").querySelectorAll("[data-machine]")) {
    const { x, y } = el.getBoundingClientRect();
    const away = 1000 * Math.abs(y - here.y) + Math.abs(x - here.x);
    if ((x - here.x) * side[0] + (y - here.y) * side[1] > 1 && away < least) [best, least] = [el, away];
  }
  best?.focus();
  if (best) pick(best.dataset.machine);
});

// ----------------------------------------------------------------------- 5 parameters

let picked = null; // the machine whose parameters are shown
let params = null; // their follower
let pause = 0;
const rows = new Map(); // parameter -> {el, input, was}

function pick(task) {
  if (task === picked) return;
  $("nodes").querySelector(".picked")?.classList.remove("picked");
  picked = task;
  clearTimeout(pause);
  params?.close();
  params = null;
  rows.clear();
  $("params").replaceChildren();
  $("machine").hidden = !task;
  if (!task) return;
  write($("machine-title"), task);
  nodes.get(split(task)[0])?.machines.get(Number(split(task)[1]))?.classList.add("picked");
  // Who passes by on the way to another one does not ask.
  pause = setTimeout(() => (params = new Follower(path("nodes", ...split(task)), drawParams)), 120);
}

function drawParams(values) {
  const known = Object.keys(values).sort(byName);
  for (const [name, { el }] of rows) if (!known.includes(name)) el.remove(), rows.delete(name);
  known.forEach((name, at) => {
    let row = rows.get(name);
    if (!row) {
      const el = stamp("param");
      row = { el, input: el.querySelector("input"), was: "" };
      rows.set(name, row);
      write(el.querySelector("span"), name);
      el.dataset.param = name;
      row.input.oninput = () => el.classList.toggle("changed", row.input.value !== row.was);
      el.onsubmit = (event) => (event.preventDefault(), set(name, row.input.value));
      $("params").insertBefore(el, $("params").children[at] ?? null);
    }
    // What somebody is writing stays.
    if (row.input.value === row.was) row.input.value = values[name];
    row.was = values[name];
    row.el.classList.toggle("changed", row.input.value !== row.was);
  });
}
const set = (name, value) => attempt(ask("PUT", path("nodes", ...split(picked), name), { value }));
$("param-new").onsubmit = (event) => {
  event.preventDefault();
  const { name, value } = event.target.elements;
  ask("PUT", path("nodes", ...split(picked), name.value.trim()), { value: value.value })
    .then(() => event.target.reset(), (error) => notice(error.message));
};
$("machine-close").onclick = () => pick(null);

// ---------------------------------------------------------------------------- 6 moves

const told = { of: null, last: 0 };

function drawMoves({ moves }) {
  const last = moves.at(-1)?.round ?? 0;
  if (told.of !== run.id || last < told.last) {
    $("moves").replaceChildren();
    Object.assign(told, { of: run.id, last: 0 });
  }
  for (const { round, from, to, cause } of moves.filter((move) => move.round > told.last)) {
    const line = make("li", { "data-round": round, "data-is": EXITS.includes(to) ? "bad" : "" }, make("i", {}, `${round}`),
      make("p", {}, make("span", {}, from), " → ", make("b", {}, to)), make("p", { class: "cause" }, cause));
    $("moves").prepend(line);
  }
  told.last = last;
  while ($("moves").children.length > MOVES) $("moves").lastChild.remove();
}

// ----------------------------------------------------------- 7 the circle and its log

let seats = [];
let crew = []; // the workers that can be killed here
const workers = new Map(); // id -> {el, kill, arrow, angle, turn, half}
let turning = () => {};

/** Each worker keeps its place in the ring; its buddy is the one before it. */
const drawCircle = framed(() => {
  const small = seats.length > PILLS[1];
  mark($("circle"), "size", small ? "dots" : seats.length > PILLS[0] ? "tight" : "pills");
  const lost = seats.filter(({ alive, left }) => !alive && !left).length;
  write($("circle-note"), `${count(seats.length - lost, "worker")}; ${lost ? `${lost} gone without a word, to be covered for` : "each watches over its buddy"}`);
  for (const [id, worker] of workers) {
    if (seats.some((seat) => seat.id === id)) continue;
    worker.el.classList.add("leaving");
    worker.arrow.remove();
    workers.delete(id);
    setTimeout(() => worker.el.remove(), calm.matches ? 0 : 400);
  }
  seats.forEach((seat, at) => {
    const angle = (at / seats.length) * 2 * Math.PI - Math.PI / 2;
    const worker = workers.get(seat.id) ?? newWorker(seat, angle);
    const buddy = seats.at(at - 1);
    const is = seat.alive ? "alive" : seat.left ? "left" : "dead";
    mark(worker.el, "is", is);
    mark(worker.arrow, "is", is !== "alive" ? "none" : buddy.alive ? "watches" : "covers");
    worker.el.title = seats.length < 2 ? `${seat.label}, alone` : `${seat.label}${is === "alive" ? `, whose buddy is ${buddy.label}` : is === "left" ? ", left" : ", gone, to be covered for"}`;
    worker.kill.hidden = small || !seat.alive || !crew.includes(seat.label);
    worker.buddy = buddy.id;
    const turn = angle - worker.angle;
    worker.turn = Math.atan2(Math.sin(turn), Math.cos(turn)); // the shorter way
    worker.from = worker.angle;
  });
  for (const worker of workers.values()) worker.half = [worker.el.offsetWidth / 2, worker.el.offsetHeight / 2];
  turning();
  turning = tween(600, turnTo);
});

function newWorker(seat, angle) {
  const kill = make("button", { type: "button", "aria-label": `Kill ${seat.label}` }, "kill");
  kill.onclick = () => attempt(ask("POST", address("workers", seat.label, "kill")));
  const el = make("div", { class: "worker", "data-worker": seat.label, tabindex: -1 }, make("i", { "aria-hidden": true }), make("span", {}, seat.label), kill);
  const worker = { el, kill, angle, arrow: draw($("circle").firstElementChild, "path", { class: "watch", "marker-end": "url(#tip)" }) };
  workers.set(seat.id, worker);
  $("circle").append(el);
  return worker;
}

function turnTo(t) {
  const { clientWidth: width, clientHeight: height } = $("circle");
  const small = workers.size > PILLS[1];
  const most = Math.max(0, ...[...workers.values()].map(({ half }) => half[0]));
  const radius = Math.max(40, Math.min(height / 2 - 20, (width / 2 - most) / 0.9));
  for (const side of ["markerWidth", "markerHeight"]) $("tip").setAttribute(side, small ? 5 : 8);
  $("circle").firstElementChild.setAttribute("viewBox", `${-width / 2} ${-height / 2} ${width} ${height}`);
  for (const worker of workers.values()) {
    worker.angle = worker.from + worker.turn * t;
    worker.x = radius * Math.cos(worker.angle);
    worker.y = radius * Math.sin(worker.angle);
    worker.el.style.transform = `translate(${worker.x}px, ${worker.y}px) translate(-50%, -50%)`;
    // As much of the ring as it covers, in radians.
    const [across, up] = worker.half;
    worker.gap = (Math.min(across / Math.abs(Math.sin(worker.angle) || 1e-9), up / Math.abs(Math.cos(worker.angle) || 1e-9)) + (small ? 1 : 5)) / radius;
  }
  const spot = (angle) => `${radius * Math.cos(angle)} ${radius * Math.sin(angle)}`;
  for (const worker of workers.values()) {
    const buddy = workers.get(worker.buddy);
    const turn = 2 * Math.PI;
    const way = buddy && buddy !== worker ? (((worker.angle - buddy.angle) % turn) + turn) % turn - worker.gap - buddy.gap : 0;
    if (way < 0.02) worker.arrow.removeAttribute("d");
    else worker.arrow.setAttribute("d", `M${spot(worker.angle - worker.gap)}A${radius} ${radius} 0 ${way > Math.PI ? 1 : 0} 0 ${spot(buddy.angle + buddy.gap)}`);
  }
}

async function about() {
  const { registry, workers: killable } = await ask("GET", "/about").catch(() => ({}));
  write($("registry"), registry ?? "");
  crew = killable ?? [];
  drawCircle();
}

function said({ worker, text }) {
  $("log").prepend(make("li", {}, make("b", {}, worker), " ", make("span", {}, text)));
  while ($("log").children.length > WORDS) $("log").lastChild.remove();
}

// ---------------------------------------------------------------------------- 8 start

new Follower("/runs", (value) => {
  runs = value;
  choose();
});
new Follower("/circle", (value) => {
  seats = value;
  drawCircle();
});
new Follower("/log", said, { resumes: true, fresh: () => $("log").replaceChildren() });
new Follower("/registry", registryIs);
addEventListener("hashchange", choose);
new ResizeObserver(drawRun).observe($("run"));
new ResizeObserver(drawCircle).observe($("circle"));
whenLive(about);
