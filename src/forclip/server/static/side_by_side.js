// Several queries side by side: the best of each in a column, parted by | in the search field.

const COLUMN = 12, COLUMNS = 6;

function columnsOf(text) { return isClass(text) ? [text] : text.split("|").map((t) => t.trim()).filter(Boolean); }

async function askColumns(texts, where) {
  if (texts.length > COLUMNS) throw new Error(`At most ${COLUMNS} queries fit side by side, and these are ${texts.length}.`);
  rankNoMore();
  const body = where ? { where, k: COLUMN } : { k: COLUMN };
  const fetching = () => Promise.all(texts.map((t) => call("api/search", { json: { ...readTexts(t), ...body } })));
  await inTurn(fetching, (answers) => showColumns(texts, answers));
}

function showColumns(texts, answers) {
  const results = answers.flatMap((a) => a.results);
  Object.assign(state, { asked: { kind: "columns" }, results, confidence: null, whole: true, best: null });
  showLabels(null);
  for (const id of ["grid", "empty", "cutoff", "absent", "more"]) $(id).hidden = true;
  $("grid").replaceChildren();
  let first = 0;
  $("side").replaceChildren(...texts.map((text, n) => {
    const made = column(text, answers[n], first);
    first += answers[n].results.length;
    return made;
  }));
  $("side").hidden = false;
  markShared(texts.length);
  showVerdicts();
  const all = cards();
  all.forEach((c, k) => { c.tabIndex = k ? -1 : 0; });
  window.scrollTo(0, 0);
  tell(`The best ${COLUMN} of ${texts.length} queries. Enter on a heading opens the whole list.`);
}

// first: the place in state.results of the column's first image.
function column(text, answer, first) {
  const made = make("section", "column"), heading = make("h2"), open = make("button", "", text), list = make("div", "column-grid");
  open.type = "button";
  open.title = "Open the whole list";
  open.addEventListener("click", trying(async () => {
    $("text").value = text;
    await askText(text);
    focusCard(0);
  }));
  heading.append(open);
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-multiselectable", "true");
  list.setAttribute("aria-label", `Images found for ${text}`);
  list.append(...answer.results.map((r, k) => card(r, first + k)));
  made.append(heading, make("p", answer.confidence?.nothing_here ? "note" : "soft", believed(answer)), list);
  list.hidden = !answer.results.length;
  return made;
}

function believed({ confidence, results }) {
  if (!results.length) return "No image";
  if (!confidence) return `Best score ${results[0].score.toFixed(3)}`;
  return confidence.nothing_here ? "Probably none here" : `About ${Math.round(confidence.expected_images)} expected in all`;
}

function markShared(columns) {
  const found = new Map();
  state.results.forEach((r) => found.set(r.key, (found.get(r.key) ?? 0) + 1));
  cards().forEach((c) => {
    const count = found.get(state.results[c.dataset.place].key);
    if (count > 1) c.querySelector(".frame").append(make("span", "shared", `in ${count} of ${columns}`));
  });
}

// The nearest card that way, as the eye sees them.
function neighbourByEye(k, key) {
  const centre = (c) => { const r = c.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; };
  const all = shown(), [x, y] = centre(all[k]);
  const far = all.map((c) => {
    const [dx, dy] = [centre(c)[0] - x, centre(c)[1] - y];
    const along = { ArrowRight: dx, ArrowLeft: -dx, ArrowDown: dy, ArrowUp: -dy }[key];
    return along < 4 ? Infinity : along + 3 * Math.abs(key === "ArrowDown" || key === "ArrowUp" ? dx : dy);
  });
  const nearest = Math.min(...far);
  return nearest === Infinity ? -1 : far.indexOf(nearest);
}

$("side").addEventListener("click", clicked);
$("side").addEventListener("keydown", pressed(neighbourByEye));
