// What was judged right and wrong, and the list ranked anew by it. Kept until the page is left, or it is forgotten.

const SOON = 350;  // milliseconds: several images judged in a row are one question
const SAYING = { y: true, "+": true, n: false, "-": false };
const verdicts = new Map();  // by question, by key: {result, right}
const unsaved = new Set();  // questions whose verdicts were not exported
let ranking = null;

// What images are judged for, whatever the filter; null where they can't be.
function question(asked) {
  if (oneText(asked) && !asked.body.only) return JSON.stringify(["search", oneText(asked)]);
  return asked?.kind === "similar" ? JSON.stringify(["similar", { ...asked.body, where: undefined }]) : null;
}
function saidOf(asked) { return verdicts.get(question(asked)) ?? new Map(); }

function picksOf(asked) {
  const all = [...saidOf(asked)];
  if (!all.length) return {};
  const keys = (right) => all.filter(([, said]) => said.right === right).map(([key]) => key);
  return { right: keys(true), wrong: keys(false) };
}

// Saying the same twice takes it back.
function say(r, right) {
  const asked = question(state.asked);
  if (asked === null) return tell("Images are judged in the whole list of one text, or of one image of the store.");
  const said = saidOf(state.asked);
  if (said.get(r.key)?.right === right) said.delete(r.key); else said.set(r.key, { result: r, right });
  verdicts.set(asked, said);
  if (said.size) unsaved.add(asked); else unsaved.delete(asked);
  showVerdicts();
  rankNoMore();
  ranking = setTimeout(rankAnew, SOON);
}

function rankNoMore() { clearTimeout(ranking); ranking = null; }

// What has the focus keeps it: the same image if it is still there, else the one that took its place.
const rankAnew = trying(async () => {
  if ($("detail").open) return;  // once it is closed: who looks closely goes on through the list as it was
  rankNoMore();
  const { asked, told } = state, count = Math.min(1000, Math.max(PAGE, state.results.length));
  await inTurn(() => fetchPart(asked, 0, count), (answer) => {
    const focused = document.activeElement.closest(".card"), place = shown().indexOf(focused);
    const key = focused && state.results[focused.dataset.place].key;
    showList(asked, told, answer, count);
    const same = shown().findIndex((c) => state.results[c.dataset.place].key === key);
    if (focused) focusCard(same >= 0 ? same : place);
  });
});
$("detail").addEventListener("close", () => { if (ranking !== null) rankAnew(); });

function showVerdicts() {
  const { right = [], wrong = [] } = picksOf(state.asked), any = right.length + wrong.length > 0;
  $("judged").hidden = !any;
  const unsure = state.calibrated ? ", without probabilities" : "";
  $("judged-told").textContent = any ? `${right.length} right, ${wrong.length} wrong – ranked by them${unsure}` : "";
  const said = saidOf(state.asked);
  $("judged-strip").replaceChildren(...[...right, ...wrong].map((key) => taker(said.get(key))));
  cards().forEach((c) => markVerdict(c, state.results[c.dataset.place]));
  showSaid();
}

// A judged image, to be pressed to take that back.
function taker({ result, right }) {
  const item = make("li"), button = make("button", right ? "right" : "wrong");
  button.type = "button";
  button.title = `${result.name}: ${right ? "right" : "wrong"}. Press to take it back.`;
  const image = Object.assign(make("img"), { src: `api/thumbnail/${result.key}`, alt: "" });
  button.append(image, make("span", "", right ? "+" : "−"), make("span", "hidden-name", button.title));
  button.addEventListener("click", () => { say(result, right); ($("judged-strip").querySelector("button") ?? $("text")).focus(); });
  item.append(button);
  return item;
}

function sayings() {
  return ["right", "wrong"].map((word) => {
    const made = make("span", `say ${word}`, word === "right" ? "+" : "−");
    made.title = word === "right" ? "right (y)" : "wrong (n)";
    return made;
  });
}

function markVerdict(card, r) {
  const said = saidOf(state.asked).get(r.key);
  card.querySelector(".said")?.remove();
  card.classList.toggle("right", said?.right === true);
  card.classList.toggle("wrong", said?.right === false);
  if (said) card.append(make("span", "said", said.right ? "+ right" : "− wrong"));
}

function showSaid() {
  const r = state.results[state.open], said = r && saidOf(state.asked).get(r.key);
  $("detail-right").setAttribute("aria-pressed", String(said?.right === true));
  $("detail-wrong").setAttribute("aria-pressed", String(said?.right === false));
  $("detail-verdict").hidden = question(state.asked) === null;
}

$("detail-right").addEventListener("click", () => say(state.results[state.open], true));
$("detail-wrong").addEventListener("click", () => say(state.results[state.open], false));
$("detail").addEventListener("keydown", (event) => {
  if (!(event.key in SAYING) || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  if (question(state.asked) !== null) say(state.results[state.open], SAYING[event.key]);
});
$("forget").addEventListener("click", () => {
  verdicts.delete(question(state.asked));
  unsaved.delete(question(state.asked));
  showVerdicts();
  rankNoMore();
  rankAnew().then(() => focusCard(0));
});
$("judged-export").addEventListener("click", () => openExport("verdicts"));
window.addEventListener("beforeunload", (event) => { if (unsaved.size) event.preventDefault(); });
