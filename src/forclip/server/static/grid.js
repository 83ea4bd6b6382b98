// The grid: it draws the cards near the screen, and moves and selects by keyboard, mouse and touch.

const CARD_WIDTHS = { small: 8, medium: 11.5, large: 18 };  // at least, in rem
const SPARE_CARDS = 60;    // drawn above and below the screen
const PATIENCE = 1000;     // milliseconds that images off the screen wait for those on it
const SETTLE_TIME = 100;   // milliseconds after fast scrolling
const HOLD_TIME = 500;     // milliseconds of a touch that selects a range
const layout = { columns: 1, width: 0, rowHeight: 0, gap: 0, row: 0 };  // row: at the top of the screen
const drawn = new Map();   // cards by index of their result
const view = { size: "medium", regions: true, names: false, fill: true, hideReviewed: false, groups: false, ...remembered("view", {}) };

// Drawing

function isColumns() { return state.request?.kind === "columns"; }

// Measure the rows. The grid must not be hidden.
function measureGrid() {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize), narrow = window.innerWidth < 700;
  const space = $("grid").clientWidth, least = CARD_WIDTHS[view.size] * rem * (narrow ? 0.75 : 1);
  layout.gap = (narrow ? 0.5 : 0.8) * rem;
  layout.columns = Math.max(1, Math.floor((space + layout.gap) / (least + layout.gap)));
  layout.width = (space - layout.gap * (layout.columns - 1)) / layout.columns;
  layout.rowHeight = layout.width + (view.names ? 3.7 : 2.2) * rem + layout.gap;
}

// Draw the cards of the rows near the screen, and the one that the Tab key reaches.
function drawGrid() {
  if ($("grid").hidden || isColumns()) return;
  const { columns, rowHeight, gap } = layout, { shown } = state, top = $("grid").getBoundingClientRect().top;
  const row = Math.floor(-top / rowHeight), usual = Math.ceil(SPARE_CARDS / columns);
  // Who flies past the images sees neither the spare ones nor pictures: both follow when the list rests.
  // A new list starts with the cards on the screen, too.
  const isFast = Math.abs(row - layout.row) > usual / 2, isNew = !drawn.size, spare = isFast || isNew ? 1 : usual;
  layout.row = row;
  const start = clamp((layout.row - spare) * columns, 0, shown.length);
  const end = clamp((Math.floor((window.innerHeight - top) / rowHeight) + spare + 1) * columns, 0, shown.length);
  const positions = Array.from({ length: end - start }, (_, k) => start + k), current = shown.indexOf(state.current);
  if (current >= 0 && current < start) positions.unshift(current);
  if (current >= end) positions.push(current);
  const wanted = new Set(positions.map((position) => shown[position]));
  for (const [index, card] of drawn) {
    if (!wanted.has(index)) { stopImage(card); card.remove(); drawn.delete(index); }
  }
  $("grid").style.height = `${Math.max(0, Math.ceil(shown.length / columns) * rowHeight - gap)}px`;
  let before = null;
  for (const position of positions) {
    const index = shown[position], card = drawn.get(index) ?? createCard(state.results[index], index);
    drawn.set(index, card);
    placeCard(card, position);
    const tabIndex = index === state.current ? 0 : -1;
    if (card.tabIndex !== tabIndex) card.tabIndex = tabIndex;
    const place = before ? before.nextSibling : $("grid").firstChild;
    if (place !== card) $("grid").insertBefore(card, place);
    before = card;
  }
  clearTimeout(resting);
  if (isFast) resting = setTimeout(drawGrid, SETTLE_TIME); else loadImages(top, isNew ? drawGrid : loadSpare);
}
let resting = 0;

// Load the images on the screen, then go on: on a slow network the others would delay them.
// top: where the grid is on the screen.
function loadImages(top, goOn) {
  const first = Math.floor(-top / layout.rowHeight), last = Math.floor((window.innerHeight - top) / layout.rowHeight);
  const seen = [...drawn.values()].filter(({ row }) => row >= first && row <= last);
  for (const card of seen) loadImage(card, true);
  clearTimeout(patience);
  patience = setTimeout(goOn, PATIENCE);
  Promise.all(seen.map(({ arrival }) => arrival)).then(() => { if (seen.every((card) => card.isConnected)) goOn(); });
}
function loadSpare() { clearTimeout(patience); for (const card of drawn.values()) loadImage(card); }
let patience = 0;

// Most cards are where they were: setting their style again would cost a layout.
function placeCard(card, position) {
  const { columns, width, rowHeight, gap } = layout, size = state.complete ? state.shown.length : -1;
  const place = [position, size, columns, width, rowHeight].join();
  if (card.place === place) return;
  card.place = place;
  card.row = Math.floor(position / columns);
  card.style.width = `${width}px`;
  card.style.height = `${rowHeight - gap}px`;
  card.style.transform = `translate(${(position % columns) * (width + gap)}px, ${card.row * rowHeight}px)`;
  card.setAttribute("aria-posinset", position + 1);
  card.setAttribute("aria-setsize", size);
}

// Draw all cards again: for new results, or where they look different.
function redrawGrid() {
  const focused = document.activeElement.closest("#grid > .card")?.dataset.index;
  drawn.clear();
  $("grid").replaceChildren();
  if ($("grid").hidden) return;
  measureGrid();
  drawGrid();
  if (focused !== undefined) drawn.get(Number(focused))?.focus({ preventScroll: true });
}

let drawing = false;
function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; drawGrid(); });
}
window.addEventListener("scroll", () => {
  if (Math.floor(-$("grid").getBoundingClientRect().top / layout.rowHeight) !== layout.row) drawSoon();
}, { passive: true });
let measuredWidth = 0;
new ResizeObserver(() => {
  if ($("grid").hidden || $("grid").clientWidth === measuredWidth) return;
  measuredWidth = $("grid").clientWidth;
  measureGrid();
  drawGrid();
}).observe($("grid"));

// Focus

// position: among the shown results.
function focusCard(position, scrolls = true) {
  const { shown } = state;
  if (!shown.length) return;
  const index = shown[Math.max(0, Math.min(shown.length - 1, position))];
  focusableOnly(index);
  const card = $(`card-${index}`);
  card.focus({ preventScroll: true });
  if (scrolls) card.scrollIntoView({ block: "nearest" });
  if (!isColumns() && shown.length - position < 12) loadMoreNearEnd();
}

// The Tab key reaches one card; the arrow keys reach the others.
function focusableOnly(index) {
  const before = $(`card-${state.current}`);
  if (before) before.tabIndex = -1;
  state.current = index;
  drawGrid();
  $(`card-${index}`).tabIndex = 0;
}

function positionOf(card) { return state.shown.indexOf(Number(card.dataset.index)); }

// Mouse and touch

function onCardClick(event) {
  const card = event.target.closest(".card");
  if (!card || wasHeld) { wasHeld = false; return; }
  const index = Number(card.dataset.index), result = resultOf(card), verdict = event.target.closest(".give");
  const selects = event.target.closest(".select") || event.ctrlKey || event.metaKey || event.shiftKey;
  focusableOnly(index);
  if (event.target.closest(".group")) return toggleGroup(index);
  if (!verdict && !selects) { state.anchor = index; return openDetail(index); }
  card.focus({ preventScroll: true });
  if (verdict) giveVerdict(result, verdict.classList.contains("right"));
  else if (event.shiftKey) selectRange(index);
  else { state.anchor = index; toggleCard(index); }
}

// Touch and hold selects from the image that was touched last. The click that follows is ignored.
let holding = null, wasHeld = false;
function onHold(event) {
  const card = event.target.closest(".card");
  if (event.pointerType !== "touch" || !card) return;
  wasHeld = false;
  clearTimeout(holding);
  holding = setTimeout(() => { wasHeld = true; navigator.vibrate?.(20); selectRange(Number(card.dataset.index)); }, HOLD_TIME);
}

for (const id of ["grid", "columns"]) {
  $(id).addEventListener("click", onCardClick);
  $(id).addEventListener("pointerdown", onHold);
  for (const name of ["pointerup", "pointercancel", "pointerleave"]) $(id).addEventListener(name, () => clearTimeout(holding));
  $(id).addEventListener("contextmenu", (event) => { if (wasHeld) event.preventDefault(); });
}

// Keyboard

// neighbour: from the position of a card and an arrow key to the position of the next.
function onCardKey(neighbour) {
  return (event) => {
    const card = event.target.closest(".card");
    if (!card || hasModifier(event)) return;
    const position = positionOf(card), index = Number(card.dataset.index), result = resultOf(card);
    const move = (next) => {
      if (next < 0) return;
      if (event.shiftKey && state.anchor < 0) state.anchor = index;
      focusCard(next);
      if (event.shiftKey) selectRange(state.current);
    };
    if (event.key.startsWith("Arrow") || event.key.startsWith("Page")) {
      const next = neighbour(position, event.key);
      if (next >= 0) move(Math.min(next, state.shown.length - 1));
    } else if (event.key in VERDICT_KEYS) giveVerdict(result, VERDICT_KEYS[event.key]);
    else if (event.key === "Home") move(0);
    else if (event.key === "End") move(state.shown.length - 1);
    else if (event.key === " " && event.shiftKey) selectRange(index);
    else if (event.key === " ") { state.anchor = index; toggleCard(index); }
    else if (event.key === "g") toggleGroup(index);
    else if (event.key === "Enter") openDetail(index);
    else if (event.key === "m") searchSimilar(result, null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
}

$("grid").addEventListener("keydown", onCardKey((position, key) => {
  const { columns, rowHeight } = layout, page = Math.max(1, Math.floor(window.innerHeight * 0.7 / rowHeight)) * columns;
  const next = position + { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page }[key];
  return next < 0 && key === "PageUp" ? position % columns : next;
}));

// View: size of the images, regions, file names

function showView() {
  document.body.classList.toggle("without-regions", !view.regions);
  for (const field of document.querySelectorAll("input[name=card-size]")) field.checked = field.value === view.size;
  $("show-regions").checked = view.regions;
  $("show-names").checked = view.names;
  $("hide-reviewed").checked = view.hideReviewed;
  $("fill-cards").checked = view.fill;
  $("group-duplicates").checked = view.groups;
}

// The image at the top of the screen stays there.
function changeView(changes) {
  const position = state.shown.length ? Math.max(0, Math.floor(-$("grid").getBoundingClientRect().top / layout.rowHeight)) * layout.columns : 0;
  Object.assign(view, changes);
  remember("view", view);
  showView();
  redrawGrid();
  if (position) window.scrollBy(0, $("grid").getBoundingClientRect().top + Math.floor(position / layout.columns) * layout.rowHeight);
}

for (const field of document.querySelectorAll("input[name=card-size]")) field.addEventListener("change", () => changeView({ size: field.value }));
for (const [id, name] of [["show-regions", "regions"], ["show-names", "names"], ["fill-cards", "fill"]]) {
  $(id).addEventListener("change", () => changeView({ [name]: $(id).checked }));
}
$("hide-reviewed").addEventListener("change", () => { changeView({ hideReviewed: $("hide-reviewed").checked }); if (state.request && !isColumns()) applyCutoff(); });
document.addEventListener("click", (event) => { if (!event.target.closest("#view")) $("view").open = false; });
$("view").addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !$("view").open) return;
  $("view").open = false;
  $("view").querySelector("summary").focus();
  event.stopPropagation();
});
showView();
