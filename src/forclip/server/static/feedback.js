// Verdicts: results that the user marks as right or wrong, and the results ranked by them. See also reviews.js.

const RANKING_DELAY = 350;  // milliseconds: verdicts in quick succession cause one request
const VERDICT_KEYS = { y: true, "+": true, n: false, "-": false };
const MOST_VERDICTS = 500;       // right, and as many wrong, that rank results: the latest
const verdicts = new Map();      // by search, by image key: {result, right}
const unranked = new Set();      // searches whose results verdicts do not rank
let rankingTimer = null;

// Return what identifies a search whatever its filter, or null where verdicts can't be given.
function searchId(request) {
  if (singleText(request) && !request.fields.only) return JSON.stringify(["search", singleText(request)]);
  return request?.kind === "similar" ? JSON.stringify(["similar", { ...request.fields, where: undefined }]) : null;
}

function verdictsOf(request) { return verdicts.get(searchId(request)) ?? new Map(); }

// Return the API fields right and wrong, or {} without verdicts.
function verdictFields(request) {
  const all = [...verdictsOf(request)];
  if (!all.length) return {};
  const keys = (right) => all.filter(([, verdict]) => verdict.right === right).map(([key]) => key);
  return { right: keys(true), wrong: keys(false) };
}

// Whether verdicts rank the results of a request.
function isRanked(request) { return verdictsOf(request).size > 0 && !unranked.has(searchId(request)); }

// Return the verdicts that rank the results of a request, as API fields.
function rankingFields(request) {
  if (!isRanked(request)) return {};
  const { right, wrong } = verdictFields(request);
  return { right: right.slice(-MOST_VERDICTS), wrong: wrong.slice(-MOST_VERDICTS) };
}

// The same verdict again removes it.
function giveVerdict(result, right) {
  const id = searchId(state.request);
  if (id === null) return showStatus("Verdicts need the full results of one text, or of images from the collection.");
  const given = verdictsOf(state.request);
  const isRemoved = given.get(result.key)?.right === right;
  given.delete(result.key);
  if (!isRemoved) given.set(result.key, { result, right });
  verdicts.set(id, given);
  sendVerdicts(id, { [isRemoved ? "removed" : right ? "right" : "wrong"]: [result.key] });
  showVerdicts();
  cancelRanking();
  if (!unranked.has(id)) rankingTimer = setTimeout(rankAgain, RANKING_DELAY);
}

function cancelRanking() { clearTimeout(rankingTimer); rankingTimer = null; }

// The focus stays on the same image, or moves to the image that took its position.
const rankAgain = showingErrors(async () => {
  if ($("detail").open) return;  // the results change when the closer look closes, so that Next and Previous stay stable
  cancelRanking();
  const { request } = state, count = Math.min(1000, Math.max(PAGE_SIZE, state.results.length));
  await showLatest(() => fetchResults(request, 0, count), (answer) => {
    const focused = document.activeElement.closest(".card"), position = focused ? positionOf(focused) : -1;
    const key = focused && resultOf(focused).key;
    showResults(request, answer, count);
    const same = state.shown.findIndex((index) => state.results[index].key === key);
    if (focused) focusCard(same >= 0 ? same : position);
  });
});

function showVerdicts() {
  const { right = [], wrong = [] } = verdictFields(state.request), any = right.length + wrong.length > 0;
  $("verdicts").hidden = !any;
  const ranked = isRanked(state.request), order = ranked ? ` Ranked by your verdicts${state.hasCalibration ? ", without probabilities" : ""}.` : "";
  $("verdicts-status").textContent = any ? `${right.length} right, ${wrong.length} wrong.${order}${listPrecision()}` : "";
  $("verdicts-rank").setAttribute("aria-pressed", String(ranked));
  const given = verdictsOf(state.request);
  $("verdicts-list").replaceChildren(...[...right.slice(-MOST_VERDICTS), ...wrong.slice(-MOST_VERDICTS)].map((key) => removeButton(given.get(key))));
  cards().forEach(updateVerdict);
  showDetailVerdict();
}

// An image with a verdict, and a button around it that removes the verdict.
function removeButton({ result, right }) {
  const item = element("li"), button = element("button", right ? "right" : "wrong");
  button.type = "button";
  button.title = `Remove ${result.name} (${right ? "right" : "wrong"})`;
  const image = Object.assign(element("img"), { src: `api/thumbnail/${result.key}`, alt: "" });
  const sign = element("span", "", right ? "+" : "−");
  sign.setAttribute("aria-hidden", "true");
  button.append(image, sign, element("span", "hidden-name", button.title));
  button.addEventListener("click", () => { giveVerdict(result, right); ($("verdicts-list").querySelector("button") ?? $("text")).focus(); });
  item.append(button);
  return item;
}

function verdictButtons() {
  return ["right", "wrong"].map((word) => {
    const button = element("span", `give ${word}`, word === "right" ? "+" : "−");
    button.title = word === "right" ? "Right (y)" : "Wrong (n)";
    return button;
  });
}

function updateVerdict(card) {
  const verdict = verdictsOf(state.request).get(resultOf(card).key);
  card.querySelector(".verdict")?.remove();
  card.classList.toggle("right", verdict?.right === true);
  card.classList.toggle("wrong", verdict?.right === false);
  if (verdict) card.append(element("span", "verdict", verdict.right ? "+ right" : "− wrong"));
}

function showDetailVerdict() {
  const result = state.results[state.openIndex], verdict = result && verdictsOf(state.request).get(result.key);
  $("detail-right").setAttribute("aria-pressed", String(verdict?.right === true));
  $("detail-wrong").setAttribute("aria-pressed", String(verdict?.right === false));
  $("detail-verdict").hidden = searchId(state.request) === null;
}

$("detail").addEventListener("close", () => { if (rankingTimer !== null) rankAgain(); });
$("detail-right").addEventListener("click", () => giveVerdict(state.results[state.openIndex], true));
$("detail-wrong").addEventListener("click", () => giveVerdict(state.results[state.openIndex], false));
$("detail").addEventListener("keydown", (event) => {
  if (!(event.key in VERDICT_KEYS) || hasModifier(event) || event.target.matches("input, select")) return;
  if (searchId(state.request) !== null) giveVerdict(state.results[state.openIndex], VERDICT_KEYS[event.key]);
});
$("verdicts-clear").addEventListener("click", () => {
  const id = searchId(state.request);
  sendVerdicts(id, { removed: [...verdictsOf(state.request).keys()] });
  verdicts.delete(id);
  showVerdicts();
  rankAgain().then(() => focusCard(0));
});
$("verdicts-rank").addEventListener("click", () => {
  const id = searchId(state.request);
  if (!unranked.delete(id)) unranked.add(id);
  showVerdicts();
  rankAgain().then(() => $("verdicts-rank").focus());
});
$("verdicts-export").addEventListener("click", () => openExport("verdicts"));
