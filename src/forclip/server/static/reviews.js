// Reviews: the verdicts and saved searches of the chosen reviewer, which the service keeps, and the start page.

const DEFAULT_REVIEWER = "me", SAMPLE_IMAGES = 24, RECENT_SEARCHES = 8, REFRESH_MILLISECONDS = 1000;
let sendingVerdicts = Promise.resolve();

function reviewerPath(part = "") { return `api/reviewers/${encodeURIComponent(state.reviewer)}${part}`; }

async function loadReviews() {
  const sent = sendingVerdicts;
  const [review, names, queues] = await Promise.all([call(reviewerPath()), call("api/reviewers"), call(reviewerPath("/queues"))]);
  if (sent !== sendingVerdicts) return;  // the answer lacks a verdict that was given since
  queueStates.clear();
  for (const now of queues) queueStates.set(now.search, now);
  verdicts.clear();
  for (const { search, right, wrong } of review.searches) {
    const entry = (isRight) => (image) => [image.key, { result: image, right: isRight }];
    verdicts.set(search, new Map([...right.map(entry(true)), ...wrong.map(entry(false))]));
  }
  state.saved = review.saved;
  $("reviewer").value = state.reviewer;
  $("reviewers").replaceChildren(...names.map((name) => option(name, "")));
  showSaved();
}

// Send verdicts in the background, one change after the other. After an error the page shows what the service has.
function sendVerdicts(search, changes) {
  sendingVerdicts = sendingVerdicts.then(() => call(reviewerPath("/verdicts"), { json: { search, ...changes }, keepalive: true })).catch(async (error) => {
    await loadReviews().catch(() => {});
    showVerdicts();
    showError(error);
  });
}

// Show what other windows changed meanwhile: selections and verdicts.
let refreshed = Date.now();
const refreshShared = showingErrors(async () => {
  if (document.visibilityState !== "visible" || $("review").open || Date.now() - refreshed < REFRESH_MILLISECONDS) return;
  refreshed = Date.now();
  await Promise.all([sending, sendingVerdicts]);
  const { request } = state, before = JSON.stringify(verdictFields(request));
  await Promise.all([loadSelections(), loadReviews()]);
  if (!request || request !== state.request || $("review").open || JSON.stringify(verdictFields(request)) === before) return;
  showVerdicts();
  if (unranked.has(searchId(request))) applyCutoff(); else rankingTimer = setTimeout(rankAgain, 0);
});
document.addEventListener("visibilitychange", refreshShared);
window.addEventListener("focus", refreshShared);

const chooseReviewer = showingErrors(async (name) => {
  await sendingVerdicts;
  const before = state.reviewer;
  state.reviewer = name.trim() || DEFAULT_REVIEWER;
  try { await loadReviews(); } catch (error) { state.reviewer = before; $("reviewer").value = before; throw error; }
  remember("reviewer", state.reviewer);
  showVerdicts();
  if (state.request && !isColumns()) await rankAgain();
});
$("reviewer").addEventListener("change", () => chooseReviewer($("reviewer").value));

// Saved searches

function address() { return location.hash.slice(1); }
function savedTitle() { return state.latest?.name ? `like ${state.latest.name}` : state.text; }

// Lists like other images may have the same name. A saved search would replace one with the same title.
function unusedTitle(title) {
  const used = new Set(state.saved.map((search) => search.title));
  let unused = title;
  for (let n = 2; used.has(unused); n += 1) unused = `${title} (${n})`;
  return unused;
}

function showSaveButton() {
  const saved = state.saved.some((search) => search.address === address());
  $("save-search").hidden = !savedTitle() || !address();
  $("save-search").textContent = saved ? "Saved" : "Save search";
  $("save-search").setAttribute("aria-pressed", String(saved));
}

function showSaved() {
  showSaveButton();
  $("saved-searches").replaceChildren(...state.saved.map(savedItem));
  $("saved").hidden = !state.saved.length;
}

function savedItem(search) {
  const item = element("li"), link = element("a", "", search.title), remove = element("button", "quiet", "Remove");
  link.href = `#${search.address}`;
  remove.type = "button";
  remove.setAttribute("aria-label", `Remove ${search.title}`);
  remove.addEventListener("click", () => removeSaved(search.title));
  item.append(link, remove);
  return item;
}

const removeSaved = showingErrors(async (title) => {
  await call(reviewerPath("/saved/remove"), { json: { title } });
  state.saved = state.saved.filter((search) => search.title !== title);
  showSaved();
});

$("save-search").addEventListener("click", showingErrors(async () => {
  const old = state.saved.find((search) => search.address === address());
  if (old) return removeSaved(old.title);
  const { where } = state.latest?.fields ?? {}, title = where ? `${savedTitle()} (${where})` : savedTitle();
  const search = { title: unusedTitle(title), address: address() };
  await call(reviewerPath("/saved"), { json: search });
  state.saved = [search, ...state.saved.filter(({ title }) => title !== search.title)];
  showSaved();
}));

// Start page

function showRecent(texts) {
  $("recent").hidden = !texts.length;
  $("recent-searches").replaceChildren(...texts.slice(0, RECENT_SEARCHES).map((text) => {
    const item = element("li"), link = element("a", "", text);
    link.href = `#${new URLSearchParams({ q: text })}`;
    item.append(link);
    return item;
  }));
}

// The sample is loaded when the start page is first shown with images in the collection.
let sampled = false;
const loadSample = showingErrors(async () => {
  if (sampled) return;
  const images = await call(`api/sample?count=${SAMPLE_IMAGES}`);
  sampled = images.length > 0;
  $("sample").hidden = !sampled;
  $("no-images").hidden = images.length > 0 || indexing.runs;
  $("sample-images").replaceChildren(...images.map((image) => {
    const item = element("li"), button = element("button");
    button.type = "button";
    button.title = `More like ${image.name}`;
    button.append(Object.assign(element("img"), { src: `api/thumbnail/${image.key}`, alt: "", loading: "lazy" }), element("span", "hidden-name", button.title));
    button.addEventListener("click", () => searchSimilar(image));
    item.append(button);
    return item;
  }));
});
