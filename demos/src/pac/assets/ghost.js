// Keeps one ghost's page fresh from `GET /state`, once a second. Peers and endpoints come from
// the registry, so they are written as text; a peer is a link only with a plain http(s) address.

const $ = (id) => document.getElementById(id);
let misses = 0;
let last = "";

function item({ label, url }) {
  const li = document.createElement("li");
  const inner = url ? li.appendChild(document.createElement("a")) : li;
  if (url) Object.assign(inner, { href: url, rel: "noreferrer" });
  inner.textContent = label;
  return li;
}

/** A peer is a coordinate, or an object with `coordinate` and perhaps `url`. */
function peer(entry) {
  const label = String(entry?.coordinate ?? entry);
  const url = typeof entry?.url === "string" && /^https?:\/\/[^/@\s]+\//.test(entry.url) ? entry.url : null;
  return { label, url };
}

function show(status) {
  document.body.dataset.status = status;
  if ($("status").textContent !== status) $("status").textContent = status;
  $("farewell").hidden = status !== "gone";
}

async function refresh() {
  try {
    const answer = await fetch("/state", { cache: "no-store", signal: AbortSignal.timeout(2000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const state = await answer.json();
    misses = 0;
    show(String(state.status));
    const now = JSON.stringify(state);
    if (now !== last) {
      last = now;
      if (state.coordinate) $("coordinate").textContent = document.title = state.coordinate;
      $("endpoints").replaceChildren(...(state.endpoints ?? []).map(({ name, host, port }) =>
        item({ label: `${name} ${`${host}`.includes(":") ? `[${host}]` : host}:${port}` })));
      $("peers").replaceChildren(...(state.peers ?? []).map(peer).map(item));
    }
  } catch {
    if (++misses >= 2) show("gone");
  }
  setTimeout(refresh, 1000);
}
refresh();

// The eyes follow the pointer.
addEventListener("pointermove", ({ clientX, clientY }) => {
  const box = $("me").getBoundingClientRect();
  const [x, y] = [clientX - box.x - box.width / 2, clientY - box.y - box.height * 0.4];
  const far = Math.max(60, Math.hypot(x, y));
  $("pupils").style.transform = `translate(${(1.8 * x) / far}px, ${(2.5 * y) / far}px)`;
});
