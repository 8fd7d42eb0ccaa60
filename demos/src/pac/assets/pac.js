// Shows the instances of the watched services as ghosts, live, from the WebSocket `/messages`.
//
//   1 settings   2 ghosts   3 score and ticker   4 board layout   5 motion
//   6 card, keys and clicks   7 connection
//
// Whatever comes from the registry is untrusted: it reaches the page only as text, and an
// address becomes a link only after `address()` has looked at it.

// ---------------------------------------------------------------------------- 1 settings

const ARRIVE_MS = 1300; // data-state="arriving"
const LEAVE_MS = 2000; // data-state="leaving", then the element is removed
const SILENCE_MS = 25_000; // no message for so long: the socket is dead (heartbeats come every 10 s)
const CONNECT_MS = 10_000;
const BACKOFF_MS = [500, 15_000];
const STEADY_MS = 5_000; // a connection that held so long resets the back-off
const CLASSIC = { blinky: "#ff3b30", pinky: "#ffa8d8", inky: "#33e1f5", clyde: "#ffab42" };
const MAX_ROOMS = 24; // rooms and score chips; the services beyond share the last one
const TICKER = 8;

const $ = (id) => document.getElementById(id);
const [board, maze, dots, pens, field, pacEl, card] =
  ["board", "maze", "dots", "pens", "ghosts", "pac", "card"].map($);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const connection = () => document.body.dataset.connection;

/** The colour of a service: classic, or from a 32-bit FNV-1a hash of its name (never scared blue). */
function colour(service) {
  if (Object.hasOwn(CLASSIC, service)) return CLASSIC[service];
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(service)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return `hsl(${(270 + (hash % 300)) % 360} 85% ${62 + ((hash >>> 16) % 3) * 7}%)`;
}

/** `{text, url}` of an http endpoint, or null when host or port are not plainly an address. */
function address(host, port) {
  if (typeof host !== "string" || !Number.isInteger(port) || port < 1 || port > 65535) return null;
  const bare = host.replace(/^\[(.*)\]$/, "$1");
  const v6 = bare.includes(":");
  if (!(v6 ? /^[0-9a-f:.]{2,45}$/i : /^[a-z0-9_]([a-z0-9._-]{0,251}[a-z0-9.])?$/i).test(bare)) return null;
  const text = `${v6 ? `[${bare}]` : bare}:${port}`;
  try {
    return { text, url: new URL(`http://${text}/`).href };
  } catch {
    return null;
  }
}

// ------------------------------------------------------------------------------ 2 ghosts

const ghosts = new Map(); // coordinate -> ghost; the leaving ones too, until they are gone
const services = new Map(); // name -> {count, colour, chip}
let epoch = 0; // one per socket: tells what a fresh socket has repeated

function created(message) {
  const { coordinate } = message;
  if (typeof coordinate !== "string" || coordinate === "" || coordinate.length > 1024) return;
  let ghost = ghosts.get(coordinate);
  if (ghost?.state === "leaving") {
    erase(ghost); // back before it was gone
    ghost = undefined;
  }
  if (ghost) {
    ghost.epoch = epoch;
    update(ghost, message);
    return;
  }
  const [id, service = id] = coordinate.split(".");
  const el = $("ghost").content.firstElementChild.cloneNode(true);
  ghost = { coordinate, id, service, el, epoch, status: "up", route: [], wait: 0, x: NaN, y: NaN };
  ghost.short = id.length > 6 ? id.slice(-4) : id;
  ghost.label = Math.min(service.length, 11) + ghost.short.length + 1;
  ghosts.set(coordinate, ghost);
  count(service, +1);
  el.dataset.coordinate = coordinate;
  el.style.setProperty("--c", services.get(service).colour);
  el.querySelector(".tag b").textContent = service;
  el.querySelector(".tag i").textContent = ghost.short;
  el.classList.toggle("dim", solo !== null && solo !== service);
  describe(ghost, message);
  if (ghost.status === "draining") setState(ghost, "draining");
  else {
    setState(ghost, "arriving");
    ghost.timer = setTimeout(settle, ARRIVE_MS, ghost);
  }
  field.append(el);
  if (known) tell("arrived", ghost);
  schedule();
}

function changed(message) {
  const ghost = ghosts.get(message.coordinate);
  if (!ghost || ghost.state === "leaving") created(message);
  else update(ghost, message);
}

function removed(ghost) {
  if (!ghost || ghost.state === "leaving") return;
  clearTimeout(ghost.timer);
  setState(ghost, "leaving");
  ghost.timer = setTimeout(erase, LEAVE_MS, ghost);
  if (selected === ghost) select(null);
  count(ghost.service, -1);
  goHome(ghost);
  tell("left", ghost);
  schedule();
}

function erase(ghost) {
  clearTimeout(ghost.timer);
  if (ghost.node) ghost.node.by = null;
  leaveRoom(ghost);
  const focused = document.activeElement === ghost.el;
  ghost.el.remove();
  ghosts.delete(ghost.coordinate);
  if (focused) field.firstElementChild?.focus();
  schedule();
}

const setState = (ghost, state) => {
  ghost.state = ghost.el.dataset.state = state;
};
const settle = (ghost) => setState(ghost, ghost.status === "draining" ? "draining" : "up");

/** Takes over address and status; true when anything is new. */
function describe(ghost, { host, port, status = ghost.status }) {
  const was = `${ghost.host} ${ghost.port} ${ghost.status}`;
  Object.assign(ghost, { host, port, status: String(status), at: address(host, port) });
  const { el, at } = ghost;
  if (at) el.href = at.url;
  else el.removeAttribute("href");
  el.role = at ? null : "img";
  el.dataset.status = ghost.status;
  el.ariaLabel = `${ghost.service} ${ghost.short}, ${ghost.status}, ${at ? at.text : "no http endpoint"}`;
  return was !== `${host} ${port} ${ghost.status}`;
}

function update(ghost, message) {
  if (!describe(ghost, message)) return;
  if (ghost.state !== "arriving" || ghost.status === "draining") {
    clearTimeout(ghost.timer);
    settle(ghost);
  }
  ghost.el.classList.remove("pulse");
  void ghost.el.offsetWidth; // so that a second change in a row pulses again
  ghost.el.classList.add("pulse");
  tell(ghost.status === "up" ? "changed" : `is ${ghost.status}`, ghost);
  if (selected === ghost) select(ghost);
}

// -------------------------------------------------------------------- 3 score and ticker

let total = 0;
let high = 0;
let solo = null; // the one service to highlight
try {
  high = Number(localStorage.getItem("pac.high")) || 0;
} catch {} // storage may be forbidden

function count(service, step) {
  const entry = services.get(service) ?? { count: 0, colour: colour(service) };
  services.set(service, entry);
  entry.count += step;
  total += step;
  if (entry.count === 0) {
    services.delete(service);
    entry.chip?.remove();
    if (solo === service) highlight(null);
  }
  $("total").dataset.count = total;
}

/** Totals and one chip for each service; drawn once a frame at most. */
function drawScore() {
  text("total", `${total}`);
  board.toggleAttribute("data-empty", total === 0);
  if (total > high) {
    high = total;
    try {
      localStorage.setItem("pac.high", high);
    } catch {}
  }
  text("high", `${high}`);
  const list = $("services");
  let at = 0;
  for (const [name, entry] of services) {
    if (++at >= MAX_ROOMS && services.size > MAX_ROOMS) {
      entry.chip?.remove();
      entry.chip = null;
      continue;
    }
    if (!entry.chip) {
      entry.chip = make("li");
      entry.chip.dataset.service = name;
      const button = entry.chip.appendChild(make("button"));
      button.type = "button";
      button.ariaPressed = "false";
      button.style.setProperty("--c", entry.colour);
      button.append(make("span", name), make("b"));
      button.onclick = () => highlight(solo === name ? null : name);
      list.append(entry.chip);
    }
    const number = entry.chip.querySelector("b");
    if (number.textContent !== `${entry.count}`) number.textContent = entry.chip.dataset.count = entry.count;
  }
  list.querySelector(".more")?.remove();
  if (services.size > MAX_ROOMS) list.append(make("li", `+ ${services.size - MAX_ROOMS + 1} more services`, "more"));
}

function highlight(service) {
  solo = service;
  for (const ghost of ghosts.values()) ghost.el.classList.toggle("dim", solo !== null && ghost.service !== solo);
  for (const [name, { chip }] of services) chip?.firstChild.setAttribute("aria-pressed", name === solo);
}

function make(tag, content = "", className = "") {
  const el = document.createElement(tag);
  el.textContent = content;
  el.className = className;
  return el;
}
function text(id, value) {
  if ($(id).textContent !== value) $(id).textContent = value;
}

/** Events of one moment are told together, so that 500 arrivals are one line. */
let untold = [];
function tell(what, ghost) {
  if (untold.push([what, ghost]) === 1) setTimeout(flushTicker, 300);
}
function flushTicker() {
  const events = untold;
  untold = [];
  if (events.length <= 3) {
    for (const [what, { service, short }] of events) note(`${short} ${what}`, service);
    return;
  }
  const kinds = {};
  for (const [what] of events) kinds[what] = (kinds[what] ?? 0) + 1;
  for (const what in kinds) note(`${kinds[what]} ghost${kinds[what] > 1 ? "s" : ""} ${what}`);
}
function note(text, service) {
  const line = make("li");
  line.append(make("time", clock(Date.now())));
  if (service) line.append(make("b", service));
  line.append(make("span", text));
  if (service) line.style.setProperty("--c", colour(service));
  $("ticker").prepend(line);
  while ($("ticker").children.length > TICKER) $("ticker").lastChild.remove();
}

// ------------------------------------------------------------------------ 4 board layout
//
// Few ghosts: a maze, a lattice of nodes joined by corridors; every node holds one ghost, so
// they never pile up. Many ghosts: pens, a room for each service with a dense grid of cells.

let world = null; // {mode, key, nodes, home, door, …}
let dirty = false;

function schedule() {
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(() => {
    dirty = false;
    drawScore();
    layout();
  });
}

function layout() {
  const width = board.clientWidth;
  const height = board.parentElement.clientHeight;
  if (width < 100 || height < 100) return;
  const spec = mazeFor(width, height);
  const key = spec ? `maze ${width} ${height} ${spec.cols} ${spec.rows}` : `pens ${width} ${height}`;
  if (world?.key !== key) {
    world = spec ? buildMaze(width, height, spec) : { mode: "pens", width, height, nodes: [] };
    world.key = key;
    board.dataset.mode = world.mode;
    board.style.height = "";
    board.style.setProperty("--g", `${world.size}px`);
    if (spec) {
      pens.replaceChildren();
      rooms.clear();
      board.dataset.tags = "all";
      startPac();
    }
    for (const ghost of ghosts.values()) {
      ghost.node = null;
      ghost.room = null;
      ghost.route = [];
    }
  }
  if (world.mode === "pens") layoutPens();
  else for (const ghost of ghosts.values()) if (!ghost.node && ghost.state !== "leaving") admit(ghost);
  if (selected) placeCard();
  wake();
}

/** The widest lattice with room for everyone, or null. Staying as it is needs least. */
function mazeFor(width, height) {
  for (const step of [104, 92, 80, 70, 60]) {
    const cols = Math.max(5, (Math.floor((width - 60) / step) + 1) - ((Math.floor((width - 60) / step) + 1) % 2 ? 0 : 1));
    const rows = Math.max(4, Math.floor((height - 64) / step) + 1);
    const share = world?.cols === cols && world?.rows === rows ? 0.62 : world?.mode === "pens" ? 0.4 : 0.5;
    if (total <= cols * rows * share) return { cols, rows };
  }
  return null;
}

/** A small seeded generator: the same board size always gives the same maze. */
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

function buildMaze(width, height, { cols, rows }) {
  const raw = Math.min((width - 64) / (cols - 1), (height - 68) / (rows - 1));
  const half = Math.min(28, raw * 0.3); // half a corridor
  const pad = half + 6;
  const dx = (width - 2 * pad) / (cols - 1);
  const dy = (height - 2 * pad - 8) / (rows - 1);
  const nodes = [];
  for (let r = 0; r < rows; r++)
    for (let c = 0; c < cols; c++) nodes.push({ x: pad + c * dx, y: pad + r * dy, c, r, next: new Set(), by: null });
  const node = (c, r) => nodes[r * cols + c];
  const join = (a, b) => (a.next.add(b), b.next.add(a));
  const cut = (a, b) => (a.next.delete(b), b.next.delete(a));
  for (const n of nodes) {
    if (n.c + 1 < cols) join(n, node(n.c + 1, n.r));
    if (n.r + 1 < rows) join(n, node(n.c, n.r + 1));
  }

  // The ghost house takes two cells in the middle; its ring of corridors stays whole.
  const mid = (cols - 1) / 2;
  const top = Math.floor((rows - 2) / 2);
  cut(node(mid, top), node(mid, top + 1));
  const ring = (a) => Math.abs(a.c - mid) <= 1 && (a.r === top || a.r === top + 1);
  const border = (a, b) => (a.c === b.c ? a.c % (cols - 1) === 0 : a.r % (rows - 1) === 0);

  // Take away corridors, mirrored left and right, as long as no dead end appears.
  const left = nodes.flatMap((a) => [...a.next].filter((b) => nodes.indexOf(b) > nodes.indexOf(a) && b.c <= mid).map((b) => [a, b]));
  const next = random(cols * 31 + rows);
  for (const edge of left) edge.order = next();
  left.sort((a, b) => a.order - b.order);
  let spare = Math.floor(left.length * (cols < 9 ? 0.24 : 0.36));
  for (const [a, b] of left) {
    if (spare === 0) break;
    if (border(a, b) || (ring(a) && ring(b))) continue;
    const [c, d] = [node(2 * mid - a.c, a.r), node(2 * mid - b.c, b.r)];
    cut(a, b);
    cut(c, d);
    if ([a, b, c, d].some((n) => n.next.size < 2) || reach(nodes[0]).size < nodes.length) {
      join(a, b);
      join(c, d);
    } else spare--;
  }

  const built = {
    mode: "maze", width, height, cols, rows, nodes, half,
    size: Math.round(Math.min(44, half * 1.5)),
    door: node(mid, top),
    home: { x: node(mid, top).x, y: (node(mid, top).y + node(mid, top + 1).y) / 2 },
  };
  drawMaze(built, dx, dy);
  return built;
}

/** Every node reachable from `from`, with the node it was reached through. */
function reach(from) {
  const via = new Map([[from, null]]);
  for (const n of via.keys()) for (const m of n.next) if (!via.has(m)) via.set(m, n);
  return via;
}
function way(from, to) {
  const via = reach(to);
  const steps = [];
  for (let n = from; n; n = via.get(n)) steps.push(n);
  return steps;
}

const svg = (parent, tag, attributes) => {
  const el = parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", tag));
  for (const name in attributes) el.setAttribute(name, attributes[name]);
  return el;
};

/** Corridors as thick lines: blue, then a little thinner in black, which leaves the outline. */
function drawMaze({ width, height, nodes, half, door, home }, dx, dy) {
  maze.replaceChildren();
  dots.replaceChildren();
  const edges = nodes.flatMap((a) => [...a.next].filter((b) => b.c > a.c || b.r > a.r).map((b) => [a, b]));
  const lines = edges.map(([a, b]) => `M${a.x} ${a.y}L${b.x} ${b.y}`).join("");
  svg(maze, "rect", { class: "block", x: 6, y: 6, width: width - 12, height: height - 12, rx: half });
  for (const [name, k, bend] of [["wall", half + 2.5, 7.5], ["floor", half, 10]]) {
    const corners = nodes.map((n) => {
      const has = (c, r) => [...n.next].some((m) => m.c === n.c + c && m.r === n.r + r);
      return [[1, 1], [1, -1], [-1, 1], [-1, -1]].filter(([sx, sy]) => has(sx, 0) && has(0, sy)).map(([sx, sy]) =>
        `M${n.x + sx * (k - 1)} ${n.y + sy * (k - 1)}h${sx * (bend + 1)}v${sy}` +
        `a${bend} ${bend} 0 0 ${sx * sy > 0 ? 0 : 1} ${-sx * bend} ${sy * bend}h${-sx}z`).join("");
    }).join("");
    svg(maze, "path", { class: name, d: lines, "stroke-width": 2 * k });
    svg(svg(maze, "g", {}), "path", { class: name, d: corners });
  }
  const [w, h] = [2 * dx - 2 * half - 2.5, dy - 2 * half - 2.5];
  svg(maze, "rect", { class: "house", x: home.x - w / 2, y: home.y - h / 2, width: w, height: h, rx: 8 });
  svg(maze, "path", { class: "door", d: `M${door.x - half * 0.8} ${home.y - h / 2}h${half * 1.6}` });

  const dot = (owner, x, y, big) => (owner.push(svg(dots, "circle", { cx: x, cy: y, r: big ? 6 : 2.2, class: big ? "big" : "" })));
  const corner = (n) => nodes[0].y !== n.y && n.next.size === 2 && [nodes[0].x, nodes.at(-1).x].includes(n.x) && n.y === nodes.at(-1).y;
  for (const n of nodes) dot((n.dots = []), n.x, n.y, corner(n) || (n.r === 0 && [nodes[0].x, nodes.at(-1).x].includes(n.x)));
  for (const [a, b] of edges) {
    const steps = Math.max(2, Math.round(Math.hypot(b.x - a.x, b.y - a.y) / 24));
    for (let i = 1; i < steps; i++) dot(i * 2 < steps ? a.dots : b.dots, a.x + ((b.x - a.x) * i) / steps, a.y + ((b.y - a.y) * i) / steps, false);
  }
}

// ---- pens

const rooms = new Map(); // name -> {slots, el, …}

function leaveRoom(ghost) {
  if (ghost.room) ghost.room.slots[ghost.slot] = null;
  ghost.room = null;
}

function layoutPens() {
  const { width, height } = world;
  const names = [...services.keys()];
  const shared = names.length > MAX_ROOMS ? new Set(names.slice(MAX_ROOMS - 1)) : new Set();
  const rest = `${shared.size} more services`;

  for (const ghost of ghosts.values()) {
    const name = shared.has(ghost.service) ? "\0rest" : ghost.service;
    if (ghost.room === rooms.get(name) && ghost.room) continue;
    if (ghost.state === "leaving" && ghost.room) continue;
    leaveRoom(ghost);
    if (!rooms.has(name)) rooms.set(name, { name, slots: [] });
    const room = rooms.get(name);
    const free = room.slots.indexOf(null);
    ghost.room = room;
    ghost.slot = free < 0 ? room.slots.length : free;
    room.slots[ghost.slot] = ghost;
  }
  for (const [name, room] of rooms) {
    const used = room.slots.filter(Boolean);
    if (used.length < room.slots.length * 0.75) {
      room.slots = used; // close the gaps, but only when there are many
      used.forEach((ghost, slot) => (ghost.slot = slot));
    }
    while (room.slots.length && !room.slots.at(-1)) room.slots.pop();
    if (room.slots.length === 0) {
      room.el?.remove();
      rooms.delete(name);
    }
  }

  // Rooms go into columns, each onto the shortest; the largest cell that fits the window wins.
  const gap = 12;
  const lane = 44;
  const finger = matchMedia("(pointer: coarse)").matches;
  const cells = [56, 50, 44, 38, 33, 30].concat(finger ? [] : [27, 24, 22]);
  const most = Math.max(1, Math.min(rooms.size, Math.floor(width / 150)));
  let best = null;
  for (const cell of cells) {
    for (let columns = 1; columns <= most; columns++) {
      const plan = planPens(width, columns, cell, lane + 6, gap);
      if (plan.bottom <= height && (!best || plan.bottom < best.bottom)) best = plan;
    }
    if (best) break;
  }
  best ??= planPens(width, Math.max(1, Math.min(most, Math.floor(width / 300))), 30, lane + 6, gap);
  const { cell, bottom, roomWidth, pitch } = best;
  world.size = Math.round(cell * 0.78);
  board.dataset.tags = cell >= 44 ? "id" : "none";
  board.style.setProperty("--g", `${world.size}px`);
  board.style.height = bottom > height ? `${bottom}px` : "";

  for (const [room, { x, y, per, high: tall }] of best.places) {
    if (!room.el) {
      room.el = pens.appendChild(make("section"));
      room.el.append(make("h2"));
      room.el.firstChild.append(make("span"), make("b"));
      room.el.style.setProperty("--c", room.name === "\0rest" ? "#aab" : colour(room.name));
    }
    const [title, number] = room.el.firstChild.children;
    title.textContent = room.name === "\0rest" ? rest : room.name;
    number.textContent = room.slots.filter((ghost) => ghost && ghost.state !== "leaving").length;
    const inset = (roomWidth - per * cell) / 2;
    Object.assign(room.el.style, { left: `${x}px`, top: `${y}px`, width: `${roomWidth}px`, height: `${tall}px` });
    room.slots.forEach((ghost, slot) => {
      if (!ghost) return;
      const first = Number.isNaN(ghost.x);
      ghost.x = x + inset + ((slot % per) + 0.5) * cell;
      ghost.y = y + 36 + Math.floor(slot / per) * pitch + cell / 2;
      ghost.el.classList.toggle("slide", !first && total <= 250);
      show(ghost);
    });
  }
  drawLane(width, lane);
}

function planPens(width, columns, cell, top, gap) {
  const pitch = cell + (cell >= 44 ? 10 : 0); // a line for the label
  const roomWidth = (width - gap * (columns + 1)) / columns;
  const per = Math.max(1, Math.floor((roomWidth - 16) / cell));
  const ends = new Array(columns).fill(top);
  const places = new Map();
  for (const room of rooms.values()) {
    const column = ends.indexOf(Math.min(...ends));
    const high = 46 + Math.ceil(room.slots.length / per) * pitch;
    places.set(room, { x: gap + column * (roomWidth + gap), y: ends[column], per, high });
    ends[column] += high + gap;
  }
  return { cell, pitch, roomWidth, places, bottom: Math.max(...ends) };
}

/** In pens mode Pac-Man has a corridor above the rooms. */
function drawLane(width, lane) {
  if (world.lane) return;
  world.lane = true;
  maze.replaceChildren();
  dots.replaceChildren();
  const y = lane / 2 + 2;
  const steps = Math.max(4, Math.round((width - 60) / 40));
  world.nodes = Array.from({ length: steps + 1 }, (_, i) => ({ x: 30 + ((width - 60) * i) / steps, y, next: new Set(), dots: [] }));
  world.nodes.forEach((n, i) => {
    if (i) n.next.add(world.nodes[i - 1]), world.nodes[i - 1].next.add(n);
    n.dots.push(svg(dots, "circle", { cx: n.x, cy: y, r: 2.4 }));
  });
  for (const [name, w] of [["wall", 37], ["floor", 32]]) svg(maze, "path", { class: name, d: `M26 ${y}H${width - 26}`, "stroke-width": w });
  startPac();
}

// ------------------------------------------------------------------------------ 5 motion

/** A newcomer gets a free node and walks there from the ghost house. */
function admit(ghost) {
  const free = world.nodes.filter((n) => !n.by);
  if (free.length === 0) return;
  const fresh = Number.isNaN(ghost.x);
  let target = free[Math.floor(Math.random() * free.length)];
  if (!fresh) target = free.reduce((best, n) => (Math.hypot(n.x - ghost.x, n.y - ghost.y) < Math.hypot(best.x - ghost.x, best.y - ghost.y) ? n : best));
  ghost.node = target;
  target.by = ghost;
  if (calm.matches) Object.assign(ghost, { x: target.x, y: target.y, route: [] });
  else if (fresh) {
    const lane = (Math.random() - 0.5) * world.size * 1.6;
    Object.assign(ghost, { x: world.home.x + lane, y: world.home.y, speed: 5, wait: 0.3 + Math.random() * Math.min(2.5, total * 0.06) });
    ghost.route = [{ x: world.home.x, y: world.home.y }, ...way(world.door, target)];
  } else {
    ghost.route = [target];
    ghost.speed = 4;
    ghost.wait = 0;
  }
  show(ghost);
}

/** The eyes of a leaving ghost run home along the corridors. */
function goHome(ghost) {
  if (ghost.node) ghost.node.by = null;
  if (world?.mode !== "maze" || calm.matches || !ghost.node) return;
  const start = world.nodes.reduce((best, n) => (Math.hypot(n.x - ghost.x, n.y - ghost.y) < Math.hypot(best.x - ghost.x, best.y - ghost.y) ? n : best));
  ghost.route = [...way(start, world.door), world.home];
  let [length, at] = [0, ghost];
  for (const n of ghost.route) {
    length += Math.hypot(n.x - at.x, n.y - at.y);
    at = n;
  }
  ghost.wait = 1;
  ghost.speed = length / 0.85 / world.size; // in ghost sizes a second
}

function wander(ghost) {
  ghost.wait = 0.15 + Math.random() * 0.5;
  const free = [...ghost.node.next].filter((n) => !n.by && n !== ghost.last);
  const options = free.length ? free : [...ghost.node.next].filter((n) => !n.by);
  if (options.length === 0) return;
  const target = options[Math.floor(Math.random() * options.length)];
  ghost.last = ghost.node;
  ghost.node.by = null;
  ghost.node = target;
  target.by = ghost;
  ghost.route = [target];
  ghost.speed = 1.1 + Math.random() * 0.5;
}

/** Moves `who` along its route by `far` pixels; true while there is a route. */
function walk(who, far) {
  while (who.route.length && far > 0) {
    const [to] = who.route;
    const [x, y] = [to.x - who.x, to.y - who.y];
    const rest = Math.hypot(x, y);
    if (rest > 0.5) look(who, Math.abs(x) > Math.abs(y) ? (x > 0 ? "r" : "l") : y > 0 ? "d" : "u");
    if (rest <= far) {
      Object.assign(who, { x: to.x, y: to.y });
      who.route.shift();
      who.reached?.(to);
    } else Object.assign(who, { x: who.x + (x / rest) * far, y: who.y + (y / rest) * far });
    far -= rest;
  }
  return who.route.length > 0;
}

function look(who, side) {
  if (who.look !== side) who.el.dataset.look = who.look = side;
}

function show(who) {
  const at = `translate(${who.x.toFixed(1)}px, ${who.y.toFixed(1)}px)`;
  if (who.shown !== at) who.el.style.transform = who.shown = at;
  // Near the edge the label moves inwards; its letters are about 6.7 px wide.
  const reach = who.label && world.mode === "maze" ? who.label * 3.35 + 6 : 0;
  const shift = Math.round(Math.max(0, reach - who.x) + Math.min(0, world.width - reach - who.x));
  if (reach && who.shift !== shift) who.el.style.setProperty("--shift", `${(who.shift = shift)}px`);
}

const pac = { el: pacEl, route: [], eaten: new Set() };
function startPac() {
  const from = world.nodes[world.mode === "maze" ? Math.floor(world.nodes.length - (world.cols + 1) / 2) : 0];
  Object.assign(pac, { x: from.x, y: from.y, node: from, route: [], eaten: new Set([from]) });
  for (const dot of from.dots) dot.classList.add("eaten");
  pacEl.style.setProperty("--p", `${Math.round(world.mode === "maze" ? world.size * 1.05 : 28)}px`);
  look(pac, "r");
  show(pac);
}
pac.reached = (node) => {
  pac.node = node;
  pac.eaten.add(node);
  for (const dot of node.dots) dot.classList.add("eaten");
};
function seekDots() {
  if (pac.eaten.size === world.nodes.length) {
    pac.eaten.clear(); // next level
    for (const dot of dots.children) dot.classList.remove("eaten");
  }
  for (const n of reach(pac.node).keys()) if (!pac.eaten.has(n)) return way(pac.node, n).slice(1);
  return [];
}

let before = 0;
let ticking = false;
function wake() {
  if (ticking || !world || calm.matches) return;
  ticking = true;
  before = performance.now();
  requestAnimationFrame(tick);
}
function tick(now) {
  const seconds = Math.min(0.2, (now - before) / 1000);
  before = now;
  const live = connection() === "live";
  let moving = live;
  if (world.mode === "maze") {
    for (const ghost of ghosts.values()) {
      if (ghost === selected && ghost.state !== "arriving") continue;
      ghost.wait -= seconds;
      if (ghost.route.length) {
        moving = true;
        if (ghost.wait <= 0) walk(ghost, ghost.speed * world.size * seconds);
        show(ghost);
      } else if (live && ghost.wait <= 0 && ghost.node && ghost.state !== "leaving") wander(ghost);
    }
  } else if (live && Math.random() < seconds * Math.min(10, total * 0.4)) hop();
  if (live && pac.node) {
    if (!pac.route.length) pac.route = seekDots();
    walk(pac, 105 * seconds);
    show(pac);
  }
  ticking = moving && !calm.matches;
  if (ticking) requestAnimationFrame(tick);
}

/** In the pens one ghost after the other hops and looks elsewhere: lively, and nearly free. */
function hop() {
  const ghost = field.children[Math.floor(Math.random() * field.children.length)];
  if (!ghost) return;
  ghost.dataset.look = "lrud"[Math.floor(Math.random() * 4)];
  ghost.classList.add("hop");
}
field.addEventListener("animationend", ({ animationName, target }) => {
  if (animationName === "hop" || animationName === "pulse") target.closest(".ghost").classList.remove(animationName);
});
new ResizeObserver(schedule).observe(board.parentElement);
calm.addEventListener("change", schedule);
for (const el of document.querySelectorAll("[data-lineup]")) {
  el.prepend($("ghost").content.querySelector("svg").cloneNode(true));
  el.style.setProperty("--c", colour(el.dataset.lineup));
}

// ------------------------------------------------------------- 6 card, keys and clicks

let selected = null; // hovered, focused or tapped; it stands still meanwhile
let touched = false;
const ghostAt = (target) => ghosts.get(target.closest?.(".ghost")?.dataset.coordinate);

function select(ghost) {
  selected?.el.classList.remove("picked");
  selected = ghost ?? null;
  card.hidden = !ghost;
  if (!ghost) return;
  ghost.el.classList.add("picked");
  const [name, where, how, open] = card.children;
  name.textContent = ghost.coordinate;
  where.textContent = ghost.at?.text ?? (ghost.host ? `${ghost.host} ${ghost.port} (not a usable address)` : "no http endpoint");
  how.textContent = ghost.at && !touched ? `${ghost.status} · Enter opens its page` : ghost.status;
  if (ghost.at) open.href = ghost.at.url;
  else open.removeAttribute("href");
  card.classList.toggle("touch", touched);
  card.style.setProperty("--c", services.get(ghost.service).colour);
  placeCard();
}
function placeCard() {
  const { x, y } = selected;
  const gap = world.size / 2 + 20;
  const left = Math.max(6, Math.min(board.clientWidth - card.offsetWidth - 6, x - card.offsetWidth / 2));
  const under = y + gap + card.offsetHeight < board.clientHeight;
  card.style.transform = `translate(${left}px, ${under ? y + gap : y - gap - card.offsetHeight + 8}px)`;
}

field.addEventListener("pointerover", (event) => {
  if (event.pointerType === "mouse") touched = false;
  if (event.pointerType === "mouse" && ghostAt(event.target)) select(ghostAt(event.target));
});
field.addEventListener("pointerout", (event) => {
  if (event.pointerType === "mouse" && ghostAt(event.target)) select(ghostAt(document.activeElement));
});
field.addEventListener("focusin", (event) => {
  const ghost = ghostAt(event.target);
  if (!ghost || ghost.state === "leaving") return;
  field.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
  event.target.tabIndex = 0;
  if (!touched) select(ghost);
});
field.addEventListener("focusout", () => select(null));
document.addEventListener("pointerdown", (event) => {
  touched = event.pointerType === "touch";
  if (touched && !event.target.closest(".ghost, #card")) select(null);
});

/** A small window, as a service's own page deserves; it gets no handle on this one. */
function openPage(event, ghost) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return; // the browser's own new tab
  event.preventDefault();
  if (ghost?.at) window.open(ghost.at.url, "_blank", "popup,noopener,noreferrer,width=640,height=480");
}
field.addEventListener("click", (event) => {
  const ghost = ghostAt(event.target);
  if (!ghost) return;
  if (touched && selected !== ghost) {
    event.preventDefault(); // the first tap shows the card
    select(ghost);
  } else openPage(event, ghost);
});
card.querySelector("a").addEventListener("click", (event) => openPage(event, selected));

// One tab stop for the whole board; the arrows go to the nearest ghost on that side.
new MutationObserver(() => {
  if (!field.querySelector('[tabindex="0"]')) field.firstElementChild?.setAttribute("tabindex", "0");
}).observe(field, { childList: true });
field.addEventListener("keydown", (event) => {
  const from = ghostAt(event.target);
  const side = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (event.key === "Escape") select(null);
  if (!from || !side) return;
  event.preventDefault();
  let [best, least] = [null, Infinity];
  for (const ghost of ghosts.values()) {
    const along = (ghost.x - from.x) * side[0] + (ghost.y - from.y) * side[1];
    const aside = Math.abs((ghost.x - from.x) * side[1]) + Math.abs((ghost.y - from.y) * side[0]);
    if (along > 1 && along + 3 * aside < least && ghost.state !== "leaving") [best, least] = [ghost, along + 3 * aside];
  }
  best?.el.focus();
});

// -------------------------------------------------------------------------- 7 connection

let socket = null;
let heard = 0; // when the last message came
let known = false; // the first full state has been shown
let ready = false; // this socket has sent its full state
let stale = null; // {since} while the server has no registry
let over = false;
let liveSince = 0;
let attempts = 0;
let retryAt = 0;

const actions = {
  hello({ registry, command }) {
    text("registry-name", registry);
    $("registry-name").title = registry; // a long one is cut short
    $("registry").hidden = false;
    text("start-command", command ?? "");
    $("start").hidden = !command; // nobody else could join
  },
  created,
  changed,
  removed: ({ coordinate }) => removed(ghosts.get(coordinate)),
  ready() {
    for (const ghost of ghosts.values()) if (ghost.epoch !== epoch) removed(ghost);
    if (!known) note(total === 0 ? "connected, no ghosts yet" : total === 1 ? "1 ghost is here" : `${total} ghosts are here`);
    ready = known = true;
    $("gameover").hidden = !over;
  },
  heartbeat() {}, // every message counts as a sign of life
  stale({ since, reason }) {
    if (!stale) note(typeof reason === "string" ? `registry out of reach: ${clip(reason, 300)}` : "registry out of reach");
    stale = { since: Number.isFinite(since) ? since : Date.now() };
  },
  live() {
    if (stale) note("registry is back");
    stale = null;
  },
  gameover: () => ($("gameover").hidden = !(over = true)),
  gameon: () => ($("gameover").hidden = !(over = false)),
};

function connect() {
  const url = new URL("messages", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const mine = (socket = new WebSocket(url));
  epoch++;
  [ready, stale, over, heard] = [false, null, false, Date.now()];
  mine.onmessage = ({ data }) => {
    if (mine !== socket) return;
    heard = Date.now();
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    if (message && Object.hasOwn(actions, message.action)) actions[message.action](message);
    if (message?.action !== "created" && message?.action !== "removed") render();
    if (message?.action === "ready") setTimeout(() => mine === socket && (attempts = 0), STEADY_MS);
  };
  mine.onclose = () => mine === socket && dropped();
  render();
}

function dropped() {
  const old = socket;
  socket = null;
  ready = false;
  old?.close();
  const [first, most] = BACKOFF_MS;
  const step = Math.min(most, first * 2 ** attempts++);
  retryAt = Date.now() + step * (0.5 + Math.random() / 2);
  render();
}

/** The connection, as seen: live, stale or disconnected. */
function render() {
  const state = stale && socket ? "stale" : ready ? "live" : "disconnected";
  if (connection() !== state) {
    document.body.dataset.connection = state;
    if (state === "live") liveSince = Date.now();
  }
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  text("link-text", { live: "Live", stale: "Registry out of reach", disconnected: socket ? "Connecting" : "Disconnected" }[state]);
  text("link-note", {
    live: `since ${clock(liveSince)}`,
    stale: `since ${clock(stale?.since)}; ${known ? "showing the last known state" : "nothing is known yet"}`,
    disconnected: known ? "showing the last known state" : "",
  }[state]);
  text("link-age", state === "stale" ? ` (${age(stale.since)})` : "");
  text("countdown", socket ? "now" : `in ${seconds} s`);
  wake();
}
function clip(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour12: false });
}
function age(since) {
  const seconds = Math.max(0, Math.round((Date.now() - since) / 1000));
  return seconds < 120 ? `${seconds} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

setInterval(() => {
  if (socket && Date.now() - heard > (socket.readyState === WebSocket.CONNECTING ? CONNECT_MS : SILENCE_MS)) dropped();
  else if (!socket && Date.now() >= retryAt) connect();
  else render();
}, 250);
const hurry = () => {
  if (!socket) connect();
};
$("coin").onclick = hurry;
addEventListener("online", hurry);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && hurry());
connect();
schedule();
