// The selection.

const named = (name) => `api/selections/${encodeURIComponent(name)}`;

// One after the other: what was picked first creates the selection.
let picking = Promise.resolve();
const pick = (r) => { picking = picking.then(() => pickNow(r)); return picking; };
const pickNow = trying(async (r) => {
  complain(null);
  const held = state.picked.has(r.key), json = { keys: [r.key] };
  const place = state.exists ? `${named(state.selection)}/${held ? "remove" : "add"}` : "api/selections";
  const now = await call(place, { json: state.exists ? json : { name: state.selection, ...json } });
  state.exists = true;
  showSelection(now);
});

function showSelection(selection) {
  state.picked = new Set(selection.keys);
  cards().forEach((c) => mark(c, state.results[c.dataset.place]));
  $("count").textContent = `${selection.keys.length} picked${selection.gone ? `, ${selection.gone} gone` : ""}`;
  $("strip").replaceChildren(...selection.keys.slice(-24).reverse().map((key) => Object.assign(make("img"), { src: `api/thumbnail/${key}`, alt: "" })));
  if ($("detail").open) showPickedState();
}

async function showSelections() {
  const names = (await call("api/selections")).map((s) => s.name);
  state.exists = names.includes(state.selection);
  if (!state.exists) names.push(state.selection);
  $("selection").replaceChildren(...names.map((n) => Object.assign(make("option", "", n), { value: n })));
  $("selection").value = state.selection;
  showSelection(state.exists ? await call(named(state.selection)) : { keys: [], gone: 0 });
}

async function choose(name) {
  state.selection = name;
  remember("selection", name);
  await showSelections();
}

$("selection").addEventListener("change", trying(() => choose($("selection").value)));
$("new").addEventListener("click", () => { $("name").value = ""; $("naming").showModal(); });
$("naming-cancel").addEventListener("click", () => $("naming").close());
$("naming-form").addEventListener("submit", trying(async (event) => {
  event.preventDefault();
  $("naming").close();
  complain(null);
  const name = $("name").value.trim();
  await call("api/selections", { json: { name, keys: [] } });
  await choose(name);
}));
$("drop").addEventListener("click", trying(async () => {
  if (!state.picked.size || confirm(`Delete the selection “${state.selection}”? The images stay where they are.`)) {
    if (state.exists) await call(named(state.selection), { method: "DELETE" });
    await choose(DEFAULT);
  }
}));
