// Results: the list, how much of it is shown and in which order, the cut-off slider, and what is said about it.

const PAGE_SIZES = [[0, PAGE_SIZE], [60, 240], [300, 1000]];  // from which length of the list how many more are loaded
const SORTED_RESULTS = 1000;  // that are loaded at least where they are not sorted by score
const RESULT_NAMES = { wrong: "false positive", missed: "false negative" };
const SORTS = {
  score: { name: "Score" },
  name: { name: "Name", value: (result) => result.name },
  time: { name: "Time", value: (result) => result.modified || null, newestFirst: true },
  size: { name: "Size", value: (result) => result.width * result.height || null, newestFirst: true },
};
const collator = new Intl.Collator(undefined, { numeric: true });

// request: what was searched. count: how many results were requested.
function showResults(request, answer, count) {
  clearResults();
  Object.assign(state, { request, confidence: answer.confidence, notes: answer.notes });
  showLabelSummary(answer.labels, request.fields.only);
  appendResults(answer.results, count);
  setUpCutoff();
  showAdvice();
  showSorts();
  showVerdicts();
  applyCutoff();
}

function clearResults() {
  Object.assign(state, { request: null, results: [], shown: [], confidence: null, notes: [], complete: true, keepCount: null, current: 0, anchor: -1 });
  drawn.clear();
  groups.members.clear();
  for (const id of ["grid", "columns"]) $(id).replaceChildren();
  for (const id of ["grid", "columns", "empty", "no-results", "list-tools", "cutoff", "advice", "more"]) $(id).hidden = true;
  showLabelSummary(null);
  showVerdicts();
}

function appendResults(results, count) {
  state.results.push(...results);
  state.complete = results.length < count || state.results.length >= state.mostListed;
}

function nextPageSize() {
  const length = state.results.length, size = PAGE_SIZES.findLast(([from]) => length >= from)[1], rest = state.mostListed - length;
  return length + size > state.mostSkipped ? rest : Math.min(size, rest);
}

// Load until the list holds so many results, or all above the cut-off.
async function loadUntil(count) {
  let before = -1;  // a page that fails to load ends the loop
  while (!state.complete && state.results.length < count && state.results.length > before && !isCut()) {
    before = state.results.length;
    await loadMore();
  }
}

$("more-button").addEventListener("click", () => loadMore());
const endObserver = new IntersectionObserver((entries) => {
  if (entries[0].isIntersecting && !$("more").hidden && state.sort === "score") loadMoreNearEnd();
}, { rootMargin: "600px" });
// Groups may leave few cards, so that the end of the list is still near: observing it again reports it again.
function watchEnd() { endObserver.unobserve($("more")); endObserver.observe($("more")); }
watchEnd();

// Cut-off

function valueOf(result) { return state.hasProbability ? result.probability ?? 0 : result.score; }

function setUpCutoff() {
  state.hasProbability = state.results.length > 0 && state.results[0].probability !== null;
  $("slider-name").textContent = state.hasProbability ? "Minimum probability" : "Minimum score";
  $("slider").step = state.hasProbability ? 0.01 : 0.002;
  spanSlider(true);
  const recommended = state.confidence?.cutoff;
  $("recommended").hidden = !recommended;
  $("recommended").textContent = `Recommended: first ${recommended}`;
}

// The slider spans the values that occur. While results are left to load it reaches lower, and loads them.
function spanSlider(fromStart) {
  const slider = $("slider"), values = state.results.map(valueOf), floor = (value) => Math.floor(value * 100 + 1e-9) / 100;
  let lowest = values.length ? floor(values.reduce((a, b) => Math.min(a, b))) : 0;
  const highest = values.length ? Math.ceil(values.reduce((a, b) => Math.max(a, b)) * 100 - 1e-9) / 100 : 1;
  const atStart = fromStart || isSliderAtStart();
  if (!state.complete) lowest = state.hasProbability ? 0 : floor(lowest - Math.max(0.05, highest - lowest));
  slider.min = lowest;
  slider.max = Math.max(highest, lowest + 0.01);
  if (atStart) slider.value = slider.min;
  // No single score orders the results of several texts.
  $("cutoff").hidden = values.length < 2 || (state.request.kind === "search" && !singleText(state.request));
}

function isSliderAtStart() { return Number($("slider").value) <= Number($("slider").min); }
function hasCutoff() { return !$("cutoff").hidden && (state.keepCount !== null || !isSliderAtStart()); }

function isKept(result) {
  if (!hasCutoff()) return true;
  return state.keepCount !== null ? result.rank <= state.keepCount : valueOf(result) >= Number($("slider").value);
}

// Whether the cut-off leaves out loaded results, so that no later one is above it.
function isCut() { return state.results.length > 0 && !isKept(state.results.at(-1)); }

// The cut-off as API fields: a number of results, a minimum, or nothing.
function cutoffFields() {
  if (!hasCutoff()) return {};
  if (state.keepCount !== null) return { k: state.keepCount };
  const minimum = Number($("slider").value);
  return state.hasProbability ? { min_probability: minimum } : { min_score: minimum };
}

// Show the results above the cut-off: a number of results where the recommendation is used, else a minimum.
function applyCutoff() {
  const count = state.results.findIndex((result) => !isKept(result));
  const kept = count < 0 ? state.results.length : count;
  const above = Array.from({ length: kept }, (_, index) => index);
  const hidden = view.hideReviewed ? verdictsOf(state.request) : new Map();
  const listed = sorted(hidden.size ? above.filter((index) => !hidden.has(state.results[index].key)) : above);
  const focused = document.activeElement.closest("#grid > .card")?.dataset.index;
  state.listed = listed.length;
  state.shown = grouped(listed);
  state.current = shownFor(state.current) ?? state.shown[0] ?? 0;
  const minimum = Number($("slider").value);
  $("slider-value").textContent = !hasCutoff() ? "all" : state.keepCount !== null ? `first ${state.keepCount}` : state.hasProbability ? `${Math.round(minimum * 100)} %` : minimum.toFixed(3);
  $("grid").hidden = !state.shown.length;
  $("list-tools").hidden = !state.results.length;
  $("select-all").textContent = hasCutoff() ? "Select all above the cut-off" : "Select all";
  $("select-all").disabled = !state.shown.length;
  $("more").hidden = state.complete || isCut();
  showNoResults(state.shown.length);
  showStatus(describeResults(state.listed));
  showSaveButton();
  showReviewButton();
  if (!state.shown.length) return;
  if (!layout.rowHeight) measureGrid();
  drawGrid();
  drawn.forEach(updateGroup);
  if (focused !== undefined && !document.activeElement.closest(".card")) focusCard(state.shown.indexOf(shownFor(Number(focused)) ?? state.current));
}

function describeResults(count) {
  const { target, fields } = state.request, name = RESULT_NAMES[fields.only] ?? "result";
  const first = state.complete && state.results.length < state.mostListed ? "" : isCut() ? "" : "the first ";
  const order = state.sort === "score" || !count ? "" : `, sorted by ${SORTS[state.sort]?.name.toLowerCase() ?? sortName(state.sort)}`;
  const inGroups = view.groups ? ` in ${plural(groups.members.size, "group")}` : "";
  const shown = count ? `Showing ${first}${plural(count, name)}${inGroups} ${target}${order}` : `No ${name}s ${target}`;
  const expected = state.confidence?.expected_images ?? null;
  return expected === null || !count ? `${shown}.` : `${shown}. About ${plural(Math.round(expected), "image")} expected to match.`;
}

function showAdvice() {
  const { confidence, results, notes } = state, best = results[0]?.probability ?? null, isDoubtful = confidence && best !== null && (confidence.nothing_here || !confidence.cutoff);
  const first = confidence?.nothing_here ? "Probably no image shows this" : "No reliable matches";
  const sentences = [...notes, ...(isDoubtful ? [`${first}: the best has a ${percent(best)} % probability.`] : [])];
  $("advice").hidden = !sentences.length;
  $("advice").textContent = sentences.join(" ");
}

function showNoResults(count) {
  $("no-results").hidden = count > 0;
  if (count) return;
  const { fields } = state.request;
  $("no-results-clear").hidden = !hasFilter() || state.results.length > 0;
  $("no-results-help").textContent = view.hideReviewed && verdictsOf(state.request).size ? "Results with a verdict are hidden. Change this under View."
    : state.results.length ? "All results are below the cut-off. Move the slider to the left."
    : fields.only ? "Press the button again to see all results."
      : hasFilter() ? "No image passes the filter together with this search. Change or clear the filter."
        : fields.key || fields.keys ? "The collection has no other image."
          : "The collection has no image to show. Add images with forclip index.";
}

$("slider").addEventListener("input", () => { state.keepCount = null; applyCutoff(); });
$("slider").addEventListener("change", () => { if (hasCutoff()) loadUntil(Infinity); });
async function useRecommended() {
  state.keepCount = state.confidence.cutoff;
  await loadUntil(state.keepCount);
  applyCutoff();
}
$("recommended").addEventListener("click", showingErrors(useRecommended));

// Order

function ownColumns() { return Object.keys(state.results[0]?.metadata ?? {}); }
function sortName(sort) { return SORTS[sort]?.name ?? sort.slice("column ".length); }

function showSorts() {
  const sorts = [...Object.keys(SORTS), ...ownColumns().map((name) => `column ${name}`)];
  if (!sorts.includes(state.sort)) state.sort = "score";
  $("sort").replaceChildren(...sorts.map((sort) => option(sort, sortName(sort))));
  $("sort").value = state.sort;
}

// Sort indexes of results. Those without a value come last, equal ones by score.
function sorted(indexes) {
  if (state.sort === "score") return indexes;
  const { value = ({ metadata }) => metadata[sortName(state.sort)], newestFirst } = SORTS[state.sort] ?? {};
  const values = state.results.map(value), sign = newestFirst ? -1 : 1;
  const compare = (a, b) => (typeof a === "string" || typeof b === "string" ? collator.compare(String(a), String(b)) : a - b);
  const isMissing = (index) => values[index] === null || values[index] === undefined;
  return indexes.sort((a, b) => isMissing(a) - isMissing(b) || (isMissing(a) ? 0 : sign * compare(values[a], values[b])) || a - b);
}

const changeSort = showingErrors(async (sort) => {
  state.sort = sort;
  writeAddress();
  if (sort !== "score") await loadUntil(SORTED_RESULTS);
  applyCutoff();
  window.scrollTo(0, 0);
});
$("sort").addEventListener("change", () => changeSort($("sort").value));
