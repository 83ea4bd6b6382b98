// Asking the service, and what was typed.

function fetchPart(asked, offset, count = PAGE) {
  if (asked.kind === "upload") {
    const form = new FormData();
    form.append("picture", asked.file);
    form.append("k", count);
    form.append("offset", offset);
    if (asked.body.where) form.append("where", asked.body.where);
    return call("api/similar/upload", { method: "POST", body: form });
  }
  return call(`api/${asked.kind}`, { json: { ...asked.body, ...picksOf(asked), k: count, offset } });
}

// Only the last question that was asked is shown.
async function inTurn(fetching, show) {
  const turn = ++state.turn;
  complain(null);
  tell("Searching …");
  document.body.setAttribute("aria-busy", "true");
  try {
    const answer = await fetching();
    if (turn === state.turn) show(answer);
  } catch (error) {
    if (turn === state.turn) { tell(""); throw error; }
  } finally {
    if (turn === state.turn) document.body.removeAttribute("aria-busy");
  }
}

async function ask(asked, told) {
  rankNoMore();
  await inTurn(() => fetchPart(asked, 0), (answer) => { showList(asked, told, answer, PAGE); window.scrollTo(0, 0); });
}

function showList(asked, told, answer, count) {
  Object.assign(state, { asked, told, results: [], confidence: answer.confidence });
  $("grid").replaceChildren();
  $("side").replaceChildren();
  $("side").hidden = $("empty").hidden = true;
  showLabels(answer.labels, asked.body.only);
  append(answer.results, count);
  setUpSlider();
  $("absent").hidden = !(answer.confidence && answer.confidence.nothing_here);
  showVerdicts();
  cut();
}

const more = trying(async () => {
  if (state.whole || state.loading || !state.asked) return;
  state.loading = true;
  const turn = state.turn;
  try {
    const answer = await fetchPart(state.asked, state.results.length);
    if (turn === state.turn) { append(answer.results, PAGE); cut(); }
  } finally { state.loading = false; }
});

function askText(text) {
  const where = $("where").value.trim();
  const history = [text, ...remembered("history", []).filter((t) => t !== text)].slice(0, 50);
  remember("history", history);
  showHistory(history);
  const hash = "#" + new URLSearchParams(where ? { q: text, where } : { q: text });
  if (location.hash !== hash) history_push(hash);
  const columns = columnsOf(text);
  if (columns.length > 1) return askColumns(columns, where);
  return ask({ kind: "search", body: { ...readTexts(text), ...(where ? { where } : {}) } }, `for “${text}”`);
}
function history_push(hash) { window.history.pushState(null, "", hash); }

// The words of a list that one text was asked for alone, else nothing.
function oneText(asked) {
  if (!asked || asked.kind !== "search") return "";
  const { text, any_of = [], all_of = [], none_of = [] } = asked.body, wanted = [...(text ? [text] : []), ...any_of, ...all_of];
  return wanted.length === 1 && !none_of.length ? wanted[0] : "";
}

// Commas part several texts: one of them is enough; those after + must all be shown, and those after - must not be.
function readTexts(text) {
  if (isClass(text)) return { text };
  const parts = text.split(",").map((t) => t.trim()).filter(Boolean);
  const after = (sign) => parts.filter((t) => t[0] === sign).map((t) => t.slice(1).trim()).filter(Boolean);
  const plain = parts.filter((t) => t[0] !== "+" && t[0] !== "-");
  return { any_of: plain, all_of: after("+"), none_of: after("-") };
}

const alike = trying(async (result, box) => {
  if ($("detail").open) $("detail").close();
  const where = $("where").value.trim();
  const body = { key: result.key, ...(box ? { box } : {}), ...(where ? { where } : {}) };
  await ask({ kind: "similar", body }, box ? `like a place in ${result.name}` : `like ${result.name}`);
  focusCard(0);
});

function showHistory(texts) {
  $("history").replaceChildren(...texts.map((t) => Object.assign(make("option"), { value: t })));
}
