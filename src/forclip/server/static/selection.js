// Selections: named lists of images. A change is shown at once and sent to the service in the background.

const KEYS_AT_ONCE = 10000;  // in one request
const KEPT_ALIVE = 2000;     // a request with fewer is sent even if the page is left; browsers allow 64 kB
const STRIP_IMAGES = 24;

function selectionPath(name) { return `api/selections/${encodeURIComponent(name)}`; }

// Changes

const changes = [];  // of the selection, to undo: {keys, added}
let sending = Promise.resolve(), unsent = 0;

// Add images to the selection, or remove them. Those for which this changes nothing are left out.
function changeSelection(keys, added, isUndo = false) {
  const changed = [...new Set(keys)].filter((key) => state.selectedKeys.has(key) !== added);
  if (!changed.length) return;
  if (!isUndo) changes.push({ keys: changed, added });
  for (const key of changed) if (added) state.selectedKeys.add(key); else state.selectedKeys.delete(key);
  showSelection();
  unsent += 1;
  sending = sending.then(() => sendChange(state.selection, changed, added));
}

// Of one image, also where its card stands for a group.
function toggleSelected({ key }) { changeSelection([key], !state.selectedKeys.has(key)); }

// Select from the result where the last range started to this one, in the order on the page.
function selectRange(index) {
  const ends = [state.anchor, index].map((end) => state.shown.indexOf(end));
  const [from, to] = ends[0] < 0 ? [ends[1], ends[1]] : [Math.min(...ends), Math.max(...ends)];
  if (ends[0] < 0) state.anchor = index;
  changeSelection(keysAt(state.shown.slice(from, to + 1)), true);
}

// Select all results that are shown, and with a cut-off those above it that are not loaded yet.
const selectAll = showingErrors(async () => {
  if (hasCutoff()) await loadUntil(Infinity);
  changeSelection(keysAt(state.shown), true);
});

function undoSelection() {
  const change = changes.pop();
  if (change) changeSelection(change.keys, !change.added, true);
  showSelection();
}

// Create the selection unless it exists: another window may have created it.
async function createSelection(name) {
  try { await call("api/selections", { json: { name, keys: [] } }); } catch (error) { if (error.status !== 409) throw error; }
  state.selectionExists = true;
}

// One change after the other, because the first one creates the selection, and again where another window deleted it.
async function sendChange(name, keys, added) {
  const send = (part) => call(`${selectionPath(name)}/${added ? "add" : "remove"}`, { json: { keys: part }, keepalive: keys.length < KEPT_ALIVE });
  try {
    let answer;
    if (!state.selectionExists) await createSelection(name);
    for (let start = 0; start < keys.length; start += KEYS_AT_ONCE) {
      const part = keys.slice(start, start + KEYS_AT_ONCE);
      try { answer = await send(part); } catch (error) {
        if (error.status !== 404) throw error;
        await createSelection(name);
        answer = await send(part);
      }
    }
    unsent -= 1;
    if (!unsent && name === state.selection) setSelection(answer);
  } catch (error) {
    unsent -= 1;
    changes.length = 0;
    await loadSelections().catch(() => {});  // show what the service has
    showError(error);
  }
}

function setSelection({ keys, gone }) {
  Object.assign(state, { selectedKeys: new Set(keys), gone });
  showSelection();
}

function showSelection() {
  const keys = [...state.selectedKeys], last = changes.at(-1);
  cards().forEach(updateCard);
  $("count").textContent = `${keys.length.toLocaleString("en")} selected${state.gone ? `, ${state.gone} no longer in the collection` : ""}`;
  $("strip").replaceChildren(...keys.slice(-STRIP_IMAGES).reverse().map((key) => Object.assign(element("img"), { src: `api/thumbnail/${key}`, alt: "" })));
  $("undo").hidden = !last;
  if (last) $("undo").replaceChildren("Undo", element("span", "wide", `: ${last.keys.length.toLocaleString("en")} ${last.added ? "added" : "removed"}`));
  for (const id of ["unselect", "like-selection"]) $(id).hidden = !keys.length;
  showDetailSelected();
  showMapSelection();
}

// The chosen selection

async function loadSelections() {
  const names = (await call("api/selections")).map((selection) => selection.name);
  state.selectionExists = names.includes(state.selection);
  if (!state.selectionExists) names.push(state.selection);
  $("selection").replaceChildren(...names.map((name) => option(name)));
  $("selection").value = state.selection;
  const selection = state.selectionExists ? await call(selectionPath(state.selection)) : { keys: [], gone: 0 };
  if (!unsent) setSelection(selection);
}

async function chooseSelection(name) {
  await sending;
  changes.length = 0;
  state.selection = name;
  remember("selection", name);
  await loadSelections();
}

$("selection").addEventListener("change", showingErrors(() => chooseSelection($("selection").value)));
$("new").addEventListener("click", () => { $("name").value = ""; $("naming").showModal(); });
$("naming-cancel").addEventListener("click", () => $("naming").close());
$("naming-form").addEventListener("submit", showingErrors(async (event) => {
  event.preventDefault();
  $("naming").close();
  showError(null);
  const name = $("name").value.trim();
  await call("api/selections", { json: { name, keys: [] } });
  await chooseSelection(name);
}));
$("delete").addEventListener("click", showingErrors(async () => {
  if (state.selectedKeys.size && !confirm(`Delete the selection “${state.selection}”? The images are kept.`)) return;
  await sending;
  if (state.selectionExists) await call(selectionPath(state.selection), { method: "DELETE" });
  await chooseSelection(DEFAULT_SELECTION);
}));

$("select-all").addEventListener("click", selectAll);
$("unselect").addEventListener("click", () => changeSelection([...state.selectedKeys], false));
$("undo").addEventListener("click", undoSelection);
