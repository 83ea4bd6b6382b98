// Searches: what the search field means, requests to the service, paging, and several searches side by side.
// A request is {kind, fields, target}: kind is "search", "similar" or "upload", fields go to the API, and target ends the
// sentence above the results ("for “snail”"). Columns have the kind "columns" and nothing else.

const COLUMN_SIZE = 12, MAX_COLUMNS = 6, MAX_TEXTS = 10;

// Requests

function textRequest(text) {
  const texts = isClassName(text) ? { any_of: [text], all_of: [], none_of: [] } : splitTexts(text);
  return { kind: "search", fields: { ...texts, ...filterField() }, target: `for “${text}”` };
}

// Commas separate texts: one of the plain ones must match, each after + must match, and none after - may match.
function splitTexts(text) {
  const parts = text.split(",").map((part) => part.trim()).filter(Boolean);
  const signed = (sign) => parts.filter((part) => part[0] === sign).map((part) => part.slice(1).trim()).filter(Boolean);
  return { any_of: parts.filter((part) => !"+-".includes(part[0])), all_of: signed("+"), none_of: signed("-") };
}

// Return the API fields of a request: texts or image, filter, and verdicts. Search, columns and export use all of them;
// the closer look picks those it accepts.
function requestFields(request) { return { ...request.fields, ...rankingFields(request) }; }

// Return the text of a request that searches for a single text, otherwise "".
function singleText(request) {
  if (request?.kind !== "search") return "";
  const { any_of, all_of, none_of } = request.fields, wanted = [...any_of, ...all_of];
  return wanted.length === 1 && !none_of.length ? wanted[0] : "";
}

// Searching

async function fetchResults(request, offset, count = PAGE_SIZE) {
  const answer = await fetchList(request, offset, count);
  if (view.groups) await findGroups(answer.results, offset ? state.results : []);
  return answer;
}

function fetchList(request, offset, count) {
  if (request.kind === "search") checkTexts(request.fields);
  const fields = { ...requestFields(request), k: count, offset };
  if (request.kind !== "upload") return call(`api/${request.kind}`, { json: fields });
  return call("api/similar/upload", { method: "POST", body: formOf(fields) });
}

function formOf(fields) {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  return form;
}

// Show the answer unless a later request was sent meanwhile. After an error the old results go, and Retry sends it again.
async function showLatest(fetchAnswer, show) {
  const turn = ++state.turn;
  showError(null);
  showStatus("Searching …");
  document.body.setAttribute("aria-busy", "true");
  try {
    const answer = await fetchAnswer();
    if (turn === state.turn) show(answer);
  } catch (error) {
    if (turn !== state.turn) return;
    clearResults();
    showStatus("");
    if (!error.isRefusal) error.retry = showingErrors(() => showLatest(fetchAnswer, show));
    throw error;
  } finally {
    if (turn === state.turn) document.body.removeAttribute("aria-busy");
  }
}

async function search(request) {
  cancelRanking();
  groups.open.clear();
  state.latest = request;
  await showLatest(() => fetchResults(request, 0), (answer) => { showResults(request, answer, PAGE_SIZE); window.scrollTo(0, 0); });
  if (state.request === request && state.sort !== "score") await changeSort(state.sort);
}

function searchText(text) {
  const history = [text, ...remembered("history", []).filter((old) => old !== text)].slice(0, 50);
  remember("history", history);
  showHistory(history);
  state.text = text;
  writeAddress();
  const texts = columnTexts(text);
  return texts.length > 1 ? searchColumns(texts) : search(textRequest(text));
}

// Return an Error that the same request would cause again.
function refusal(message) { return Object.assign(new Error(message), { isRefusal: true }); }

// Throw an Error where the service would not take the texts of a request.
function checkTexts({ any_of, all_of, none_of }) {
  const most = Math.max(any_of.length, all_of.length, none_of.length);
  if (most > MAX_TEXTS) throw refusal(`At most ${MAX_TEXTS} texts fit in one search. This one has ${most}.`);
  if (any_of.length || all_of.length) return;
  throw refusal(none_of.length ? "Say what the images show, too. A text after - only leaves images out." : "Say what the images show.");
}

// The address holds the text or the image, the filter and the order, so that it can be opened again.
// isRead: the address said what was searched, so that it is replaced where it was written otherwise.
function writeAddress(isRead = false) {
  const searched = state.text ? { q: state.text } : state.latest?.kind === "similar" ? likeAddress(state.latest) : null;
  if (!searched) return;
  const hash = "#" + new URLSearchParams({ ...searched, ...filterAddress(), ...(state.sort === "score" ? {} : { sort: state.sort }) });
  if (addressWith(null) !== hash) window.history[isRead ? "replaceState" : "pushState"](null, "", hash);
}

// Search again for what was searched last, with the filter as it is now.
async function searchAgain() {
  if (!state.latest) return;
  writeAddress();
  if (state.latest.kind === "columns") return searchColumns(state.latest.texts);
  const { where, ...fields } = state.latest.fields;
  await search({ ...state.latest, fields: { ...fields, ...filterField() } });
}

// The sides of a box are rounded as in the address, so that both name the same search.
function similarRequest({ key, name }, drawnBox) {
  const box = drawnBox && Object.fromEntries(["x0", "y0", "x1", "y1"].map((side) => [side, Number(drawnBox[side].toFixed(4))]));
  const fields = { key, ...(box ? { box } : {}), ...filterField() };
  return { kind: "similar", fields, name, target: `similar to ${box ? "a region of " : ""}${name}` };
}

function likeAddress({ fields: { key, keys, box }, name }) {
  return { like: keys ? keys.join(" ") : key, name, ...(box ? { box: Object.values(box).join(" ") } : {}) };
}

// Return the request of an address that names an image, or several.
function likeRequest(parameters) {
  const keys = parameters.get("like").split(" ");
  if (keys.length > 1) return severalRequest(keys, parameters.get("name") || plural(keys.length, "image"));
  const sides = (parameters.get("box") ?? "").split(" ").map(Number);
  const box = sides.length === 4 && sides.every(Number.isFinite) ? { x0: sides[0], y0: sides[1], x1: sides[2], y1: sides[3] } : null;
  return similarRequest({ key: parameters.get("like"), name: parameters.get("name") || "an image" }, box);
}

// Search with an image of the collection, or with a region of it where a box is given.
const searchSimilar = showingErrors(async (result, box) => {
  if ($("detail").open) $("detail").close();
  state.text = "";
  state.latest = similarRequest(result, box);
  writeAddress();
  await search(state.latest);
  focusCard(0);
});

const searchFile = showingErrors(async (file) => {
  state.text = "";
  await search({ kind: "upload", fields: { picture: file, ...filterField() }, target: `similar to ${file.name || "your image"}` });
  focusCard(0);
});

// Load the next page of results. Callers during a load wait for the same page.
let loading = null;
function loadMore() { return loading ??= loadPage().finally(() => { loading = null; }); }

// Load the next page as the user comes near the end. A list whose page failed waits for a button.
let failedTurn = null;
function loadMoreNearEnd() { if (failedTurn !== state.turn) loadMore(); }

const loadPage = showingErrors(async () => {
  if (state.complete || !state.request) return;
  const turn = state.turn, count = nextPageSize();
  const answer = await fetchResults(state.request, state.results.length, count).catch((error) => { failedTurn = turn; error.retry = loadMore; throw error; });
  failedTurn = null;
  if (turn !== state.turn) return;
  appendResults(answer.results, count);
  spanSlider(false);
  showError(null);
  applyCutoff();
  watchEnd();
});

function showHistory(texts) {
  $("history").replaceChildren(...texts.map((text) => option(text, "")));
  showRecent(texts);
}

// Several searches side by side, separated by | in the search field

function columnTexts(text) { return isClassName(text) ? [text] : text.split("|").map((part) => part.trim()).filter(Boolean); }

async function searchColumns(texts) {
  if (texts.length > MAX_COLUMNS) clearResults();
  if (texts.length > MAX_COLUMNS) throw new Error(`At most ${MAX_COLUMNS} searches fit side by side. This text has ${texts.length}.`);
  cancelRanking();
  state.latest = { kind: "columns", texts };
  // Verdicts belong to the full results of a text, so a column leaves them out.
  const requests = texts.map(textRequest);
  const fetchColumn = async ({ fields }) => { checkTexts(fields); return call("api/search", { json: { ...fields, k: COLUMN_SIZE } }); };
  await showLatest(() => Promise.all(requests.map(fetchColumn)), (answers) => showColumns(texts, requests, answers));
}

function showColumns(texts, requests, answers) {
  const results = answers.flatMap((answer, n) => answer.results.map((result) => ({ ...result, request: requests[n] })));
  clearResults();
  Object.assign(state, { request: { kind: "columns" }, results, shown: results.map((_, index) => index) });
  let start = 0;
  $("columns").replaceChildren(...texts.map((text, n) => {
    const column = createColumn(text, answers[n], start);
    start += answers[n].results.length;
    return column;
  }));
  $("columns").hidden = false;
  state.notes = [...new Set(answers.flatMap(({ notes }) => notes))];
  showAdvice();
  for (const card of cards()) loadImage(card);
  markShared(texts.length);
  showVerdicts();
  if (results.length) focusableOnly(0);
  window.scrollTo(0, 0);
  showStatus(`Showing the first ${COLUMN_SIZE} results of ${texts.length} searches. Open a heading to see all results.`);
}

// start: index in state.results of the column's first image.
function createColumn(text, answer, start) {
  const column = element("section", "column"), heading = element("h2"), open = element("button", "", text), list = element("div", "column-grid");
  open.type = "button";
  open.title = "Show all results";
  open.addEventListener("click", showingErrors(async () => {
    $("text").value = text;
    await searchText(text);
    focusCard(0);
  }));
  heading.append(open);
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-multiselectable", "true");
  list.setAttribute("aria-label", `Results for ${text}`);
  list.append(...answer.results.map((result, k) => createCard(result, start + k)));
  list.hidden = !answer.results.length;
  column.append(heading, element("p", answer.confidence?.nothing_here ? "note" : "soft", columnSummary(answer)), list);
  return column;
}

function columnSummary({ confidence, results }) {
  if (!results.length) return "No results";
  if (!confidence) return `Best score ${results[0].score.toFixed(3)}`;
  return confidence.nothing_here ? "Probably no image matches" : `About ${plural(Math.round(confidence.expected_images), "image")} expected to match`;
}

// Mark images that several columns contain.
function markShared(columnCount) {
  const counts = new Map();
  for (const { key } of state.results) counts.set(key, (counts.get(key) ?? 0) + 1);
  for (const card of cards()) {
    const count = counts.get(resultOf(card).key);
    if (count > 1) card.querySelector(".frame").append(element("span", "shared", `in ${count} of ${columnCount}`));
  }
}

// Return the index of the nearest card in the direction of an arrow key, by position on the screen; -1 if there is none.
function nearestCard(index, key) {
  const centre = (card) => { const edges = card.getBoundingClientRect(); return [edges.left + edges.width / 2, edges.top + edges.height / 2]; };
  const all = cards(), [x, y] = centre(all[index]);
  const distances = all.map((card) => {
    const [dx, dy] = [centre(card)[0] - x, centre(card)[1] - y];
    const along = { ArrowRight: dx, ArrowLeft: -dx, ArrowDown: dy, ArrowUp: -dy }[key];
    return along < 4 ? Infinity : along + 3 * Math.abs(key === "ArrowDown" || key === "ArrowUp" ? dx : dy);
  });
  const least = Math.min(...distances);
  return least === Infinity ? -1 : distances.indexOf(least);
}

$("columns").addEventListener("keydown", onCardKey(nearestCard));
