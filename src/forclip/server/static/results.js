// Results: the cards, the grid with its keyboard and mouse, and the cut-off slider.

// request: what was searched. count: how many results were requested.
function showResults(request, answer, count) {
  Object.assign(state, { request, results: [], confidence: answer.confidence });
  $("grid").replaceChildren();
  $("columns").replaceChildren();
  $("columns").hidden = $("empty").hidden = true;
  showLabelSummary(answer.labels, request.fields.only);
  appendResults(answer.results, count);
  setUpCutoff();
  $("no-match").hidden = !answer.confidence?.nothing_here;
  showVerdicts();
  applyCutoff();
}

function appendResults(results, count) {
  state.complete = results.length < count;
  const start = state.results.length;
  state.results.push(...results);
  $("grid").append(...results.map((result, k) => createCard(result, start + k)));
  $("grid").hidden = !state.results.length;
}

// Cards

function createCard(result, index) {
  const card = element("div", "card");
  card.setAttribute("role", "option");
  card.id = `card-${index}`;
  card.tabIndex = index === 0 ? 0 : -1;
  card.dataset.index = index;
  const frame = element("div", "frame"), picture = element("div", "picture"), line = element("div", "line");
  showImage(result, `api/thumbnail/${result.key}`, picture).addEventListener("error", () => {
    frame.replaceChildren(element("span", "", "Image unavailable"));
  });
  frame.append(picture, ...labelBadge(result));
  const score = result.probability === null ? "" : `, score ${result.score.toFixed(3)}`;
  line.append(element("span", "rank", `${result.rank}`), element("span", "", formatConfidence(result)), element("span", "hidden-name", `, ${result.name}${score}`));
  card.title = `${result.name}\nscore ${result.score.toFixed(3)}`;
  card.append(frame, line, element("span", "select"), ...verdictButtons());
  updateCard(card);
  return card;
}

function formatConfidence(result) { return result.probability === null ? result.score.toFixed(3) : `${percent(result.probability)} %`; }
// Rounded down, so that a minimum of 50 % keeps every result that shows 50 %.
function percent(probability) { return probability > 0 && probability < 0.01 ? "< 1" : String(Math.floor(probability * 100 + 1e-9)); }

// Put an image and the outline of its best region into a container of the image's shape.
function showImage(result, source, container) {
  const wide = result.width >= result.height;
  container.style.aspectRatio = result.width && result.height ? `${result.width} / ${result.height}` : "1";
  container.style.width = wide ? "100%" : "auto";
  container.style.height = wide ? "auto" : "100%";
  const image = Object.assign(element("img"), { loading: "lazy", decoding: "async", alt: "", draggable: false, src: source });
  container.replaceChildren(image);
  if (result.box) container.append(createOutline(result.box));
  return image;
}

function createOutline(box, className = "region") {
  const outline = element("div", className);
  placeAt(outline, box);
  return outline;
}

// box: fractions of the image's width and height.
function placeAt(target, box) {
  target.style.left = `${box.x0 * 100}%`;
  target.style.top = `${box.y0 * 100}%`;
  target.style.width = `${(box.x1 - box.x0) * 100}%`;
  target.style.height = `${(box.y1 - box.y0) * 100}%`;
}

function resultOf(card) { return state.results[card.dataset.index]; }

function updateCard(card) {
  card.setAttribute("aria-selected", String(state.selectedKeys.has(resultOf(card).key)));
  updateVerdict(card);
}

function cards() { return [...document.querySelectorAll("#grid > .card, #columns .card")]; }
function visibleCards() { return cards().filter((card) => !card.hidden); }

// Keyboard and mouse

// index: among the visible cards.
function focusCard(index) {
  const all = visibleCards();
  if (!all.length) return;
  const target = all[Math.max(0, Math.min(all.length - 1, index))];
  focusableOnly(target);
  target.focus();
  target.scrollIntoView({ block: "nearest" });
  if (all.length - index < 12) loadMore();
}

// The Tab key reaches one card; the arrow keys reach the others.
function focusableOnly(target) { for (const card of cards()) card.tabIndex = card === target ? 0 : -1; }

function cardsPerRow() {
  const tops = visibleCards().map((card) => card.offsetTop);
  const next = tops.findIndex((top) => top !== tops[0]);
  return next < 0 ? Math.max(1, tops.length) : next;
}

function onCardClick(event) {
  const card = event.target.closest(".card");
  if (!card) return;
  focusableOnly(card);
  const verdict = event.target.closest(".give"), result = resultOf(card);
  if (!verdict && !event.target.closest(".select")) return openDetail(Number(card.dataset.index));
  card.focus();
  if (verdict) giveVerdict(result, verdict.classList.contains("right")); else toggleSelected(result);
}

// neighbour: from the index of a visible card and an arrow key to the index of the next.
function onCardKey(neighbour) {
  return (event) => {
    const card = event.target.closest(".card");
    if (!card || hasModifier(event)) return;
    const all = visibleCards(), result = resultOf(card);
    if (event.key.startsWith("Arrow")) {
      const next = neighbour(all.indexOf(card), event.key);
      if (next >= 0) focusCard(Math.min(next, all.length - 1));
    } else if (event.key in VERDICT_KEYS) giveVerdict(result, VERDICT_KEYS[event.key]);
    else if (event.key === "Home") focusCard(0);
    else if (event.key === "End") focusCard(all.length - 1);
    else if (event.key === " ") toggleSelected(result);
    else if (event.key === "Enter") openDetail(Number(card.dataset.index));
    else if (event.key === "m") searchSimilar(result, null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
}

$("grid").addEventListener("click", onCardClick);
$("grid").addEventListener("keydown", onCardKey((index, key) => {
  return index + { ArrowRight: 1, ArrowLeft: -1, ArrowDown: cardsPerRow(), ArrowUp: -cardsPerRow() }[key];
}));
$("more-button").addEventListener("click", () => loadMore());
new IntersectionObserver((entries) => { if (entries[0].isIntersecting && !$("more").hidden) loadMore(); }, { rootMargin: "600px" }).observe($("more"));

// Cut-off

function setUpCutoff() {
  const hasProbability = state.results.length > 0 && state.results[0].probability !== null;
  const scores = state.results.map((result) => result.score), slider = $("slider");
  Object.assign(state, { hasProbability, keepCount: null });
  $("slider-name").textContent = hasProbability ? "Minimum probability" : "Minimum score";
  slider.min = hasProbability || !scores.length ? 0 : Math.floor(Math.min(...scores) * 100) / 100;
  slider.max = hasProbability ? 1 : Math.ceil(Math.max(...scores, 0.01) * 100) / 100;
  slider.step = hasProbability ? 0.01 : 0.002;
  slider.value = slider.min;
  // No single score orders the results of several texts.
  $("cutoff").hidden = !state.results.length || (state.request.kind === "search" && !singleText(state.request));
  const recommended = state.confidence?.cutoff;
  $("recommended").hidden = !recommended;
  $("recommended").textContent = `Recommended: first ${recommended}`;
  $("advice").hidden = !state.confidence || recommended > 0;
}

// Hide the cards beyond the cut-off: a number of results where the recommendation is used, else a minimum.
function applyCutoff() {
  const slider = $("slider"), minimum = Number(slider.value), atStart = minimum <= Number(slider.min);
  const value = (result) => (state.hasProbability ? result.probability : result.score);
  const isKept = (result) => (state.keepCount !== null ? result.rank <= state.keepCount : atStart || value(result) >= minimum);
  let count = 0;
  state.results.forEach((result, index) => {
    const kept = isKept(result);
    $(`card-${index}`).hidden = !kept;
    count += kept;
  });
  const visible = visibleCards();
  if (visible.length && !visible.some((card) => card.tabIndex === 0)) visible[0].tabIndex = 0;
  const bound = state.hasProbability ? `${Math.round(minimum * 100)} %` : minimum.toFixed(3);
  $("slider-value").textContent = state.keepCount !== null ? `first ${state.keepCount}` : bound;
  $("more").hidden = state.complete || count < state.results.length;
  showStatus(describeResults(count));
}

const RESULT_NAMES = { wrong: "false positive", missed: "false negative" };

function describeResults(count) {
  const { target, fields } = state.request, name = RESULT_NAMES[fields.only] ?? "result";
  const first = state.complete || count < state.results.length ? "" : "the first ";
  const shown = count ? `Showing ${first}${plural(count, name)} ${target}` : `No ${name}s ${target}`;
  const expected = state.confidence?.expected_images ?? null;
  return expected === null ? `${shown}.` : `${shown}. About ${plural(Math.round(expected), "image")} expected to match.`;
}

$("slider").addEventListener("input", () => { state.keepCount = null; applyCutoff(); });
$("recommended").addEventListener("click", showingErrors(async () => {
  state.keepCount = state.confidence.cutoff;
  let before = -1;  // a page that fails to load ends the loop
  while (state.results.length < state.keepCount && state.results.length > before && !state.complete) {
    before = state.results.length;
    await loadMore();
  }
  applyCutoff();
}));
