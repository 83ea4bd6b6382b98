// The map of the collection: a point for each image, images that are alike near each other. Points are drawn on a canvas.

const MAP_MILLISECONDS = 1000, MAP_MARGIN = 16, POINT = 3, NEAR = 12;  // the last three in pixels
const MAP_ZOOM = 1.5, MAX_MAP_ZOOM = 400, SCORE_STEPS = 12, LEAST_LASSO = 5;  // points of a lasso, of which fewer are a click
// Colours of both themes: of points without a score, of the lowest and the highest score, of verdicts.
const MAP_COLOURS = {
  light: { none: [176, 183, 194], low: [140, 156, 180], high: [214, 0, 116], right: "#0b5cad", wrong: "#a3212b" },
  dark: { none: [84, 92, 105], low: [92, 108, 138], high: [255, 92, 174], right: "#7db8ff", wrong: "#ff8a8a" },
};
// x, y: of the middle of the canvas, on the map. zoom: 1 shows the whole map. current: index of the point that was chosen.
// pointers: where mouse buttons or fingers are down. lasso: positions, or null.
const atlas = { answer: null, scores: new Map(), x: 0.5, y: 0.5, zoom: 1, current: -1, hovered: -1, lasso: null, pointers: new Map(), moved: false, timer: 0, turn: 0 };

// Loading

async function openMap() {
  if (!$("map").open) $("map").showModal();
  $("map-canvas").focus();
  showMapSelection();
  showLoadedScores();
  await loadMap();
  if (atlas.answer?.keys.length) await loadScores();
}

const showingOnMap = (work) => (...values) => work(...values).catch((error) => { $("map-status").textContent = error.message; });

// Ask again while the service computes.
const loadMap = showingOnMap(async () => {
  clearTimeout(atlas.timer);
  const before = atlas.answer, chosen = before?.keys[atlas.current], answer = await call("api/map");
  atlas.answer = answer;
  chooseOnMap(answer.keys.indexOf(chosen), false);
  $("map-status").textContent = describeMap(answer);
  for (const button of document.querySelectorAll("#map .needs-points")) button.disabled = !answer.keys.length;
  drawMap();
  if (atlas.timer && String(answer.keys) !== String(before?.keys)) loadScores();  // of the images that came while it was open
  atlas.timer = 0;
  if (answer.state === "computing" && $("map").open) atlas.timer = setTimeout(loadMap, MAP_MILLISECONDS);
});

function describeMap({ state: status, method, images, keys }) {
  if (!images) return "The collection has no images yet.";
  if (status === "failed") return "The map could not be computed. The log of the service says why.";
  if (!keys.length) return "Computing the map …";
  const shown = keys.length < images ? `A sample of ${keys.length.toLocaleString("en")} of ${plural(images, "image")}.` : `${plural(images, "image")}.`;
  if (status !== "computing") return shown;
  return method === "pca" ? `${shown} A better arrangement is being computed.` : `${shown} The collection has changed, and a new map is being computed.`;
}

function showLoadedScores() {
  atlas.scores = new Map(isColumns() ? [] : state.results.map(({ key, score }) => [key, score]));
  showMapColours();
}

// Load scores of all points where the service can search again, in place of those of the results that are loaded.
const loadScores = showingOnMap(async () => {
  const turn = ++atlas.turn, { request } = state;
  if (request?.kind !== "search" && request?.kind !== "similar") return;
  const answer = await call("api/map/scores", { json: { [request.kind]: requestFields(request) } });
  if (turn !== atlas.turn) return;
  atlas.scores = new Map(Object.entries(answer.scores));
  showMapColours();
});

// Drawing

function mapColour() { return $("map-colour").value; }

function showMapColours() {
  const known = atlas.scores.size > 0 && mapColour() === "score";
  $("map-legend").hidden = !known;
  if (known) [$("map-low").textContent, $("map-high").textContent] = scoreRange().map((score) => score.toFixed(2));
  $("map-colour-help").textContent = mapColour() === "verdict"
    ? "Blue: right. Red: wrong. Grey: no verdict in this search."
    : mapColour() === "score" && !known ? "Search first to see scores." : "";
  drawMap();
}

// Return the median and the highest score, between which colours differ: most scores are low, and near each other.
function scoreRange() {
  const ordered = [...atlas.scores.values()].sort((a, b) => a - b);
  return [ordered[Math.floor((ordered.length - 1) / 2)], ordered.at(-1)];
}

function mapSize() { return Math.max(1, Math.min($("map-canvas").clientWidth, $("map-canvas").clientHeight) - 2 * MAP_MARGIN) * atlas.zoom; }

// Return where a place on the map is on the canvas, in pixels.
function onCanvas(x, y) {
  const size = mapSize(), canvas = $("map-canvas");
  return [(x - atlas.x) * size + canvas.clientWidth / 2, (y - atlas.y) * size + canvas.clientHeight / 2];
}
function onMap(left, top) {
  const size = mapSize(), canvas = $("map-canvas");
  return [(left - canvas.clientWidth / 2) / size + atlas.x, (top - canvas.clientHeight / 2) / size + atlas.y];
}

// Return the points in layers of one colour each, the most important last: [colour, indexes].
function mapLayers() {
  const { keys } = atlas.answer, colours = MAP_COLOURS[document.documentElement.dataset.theme], rgb = (c) => `rgb(${c.join(" ")})`;
  const all = Array.from(keys, (_, n) => n);
  if (mapColour() === "verdict") {
    const given = verdictsOf(state.request), of = (right) => all.filter((n) => given.get(keys[n])?.right === right);
    return [[rgb(colours.none), of(undefined)], [colours.wrong, of(false)], [colours.right, of(true)]];
  }
  if (mapColour() !== "score" || !atlas.scores.size) return [[rgb(colours.none), all]];
  const [low, high] = scoreRange();
  const steps = Array.from({ length: SCORE_STEPS + 1 }, () => []);  // the first for points without a score
  for (const n of all) {
    const score = atlas.scores.get(keys[n]);
    steps[score === undefined ? 0 : 1 + clamp(Math.floor(SCORE_STEPS * (score - low) / (high - low || 1)), 0, SCORE_STEPS - 1)].push(n);
  }
  return steps.map((indexes, step) => {
    const share = (step - 1) / (SCORE_STEPS - 1);
    return [rgb(step ? colours.low.map((c, k) => Math.round(c + share * (colours.high[k] - c))) : colours.none), indexes];
  });
}

let mapDrawing = false;
function drawMap() {
  if (mapDrawing || !$("map").open) return;
  mapDrawing = true;
  requestAnimationFrame(() => { mapDrawing = false; paintMap(); });
}

function paintMap() {
  const canvas = $("map-canvas"), scale = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
  const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  if (!atlas.answer) return;
  const { keys, x, y } = atlas.answer, style = getComputedStyle(document.documentElement);
  const ring = (n, radius) => { const [left, top] = onCanvas(x[n], y[n]); pen.moveTo(left + radius, top); pen.arc(left, top, radius, 0, 2 * Math.PI); };
  for (const [colour, indexes] of mapLayers()) {
    pen.beginPath();
    for (const n of indexes) ring(n, POINT);
    pen.fillStyle = colour;
    pen.fill();
  }
  pen.beginPath();
  if (state.selectedKeys.size) keys.forEach((key, n) => { if (state.selectedKeys.has(key)) ring(n, POINT + 2); });
  Object.assign(pen, { lineWidth: 2, strokeStyle: style.getPropertyValue("--selected") });
  pen.stroke();
  pen.beginPath();
  if (atlas.current >= 0) ring(atlas.current, POINT + 6);
  if (atlas.lasso) atlas.lasso.forEach(([left, top], n) => (n ? pen.lineTo(left, top) : pen.moveTo(left, top)));
  Object.assign(pen, { lineWidth: 3, strokeStyle: style.getPropertyValue("--accent") });
  pen.stroke();
}

// Moving

function moveMap(dx, dy) { atlas.x -= dx / mapSize(); atlas.y -= dy / mapSize(); drawMap(); }

// left, top: the place on the canvas that stays where it is, by default the middle.
function zoomMap(factor, left = $("map-canvas").clientWidth / 2, top = $("map-canvas").clientHeight / 2) {
  const [x, y] = onMap(left, top);
  atlas.zoom = clamp(atlas.zoom * factor, 1, MAX_MAP_ZOOM);
  const [u, v] = onMap(left, top);
  atlas.x += x - u;
  atlas.y += y - v;
  drawMap();
}

function showWholeMap() { Object.assign(atlas, { x: 0.5, y: 0.5, zoom: 1 }); drawMap(); }

// One point

// Return the index of the point nearest to a place on the canvas, -1 if none is near.
function nearestPoint(left, top, most = NEAR) {
  if (!atlas.answer) return -1;
  const { x, y } = atlas.answer, [u, v] = onMap(left, top), size = mapSize();
  let best = -1, least = (most / size) ** 2;
  for (let n = 0; n < x.length; n++) {
    const distance = (x[n] - u) ** 2 + (y[n] - v) ** 2;
    if (distance <= least) { best = n; least = distance; }
  }
  return best;
}

// Return the index of the nearest point in the direction of an arrow key, -1 if there is none.
function pointTowards(key) {
  const { x, y } = atlas.answer, current = atlas.current;
  let best = -1, least = Infinity;
  for (let n = 0; n < x.length; n++) {
    const dx = x[n] - x[current], dy = y[n] - y[current];
    const along = { ArrowRight: dx, ArrowLeft: -dx, ArrowDown: dy, ArrowUp: -dy }[key];
    const distance = along + 3 * Math.abs(key === "ArrowDown" || key === "ArrowUp" ? dx : dy);
    if (along > 1e-6 && distance < least) { best = n; least = distance; }
  }
  return best;
}

function mapImage(n) { return { key: atlas.answer.keys[n], name: atlas.answer.names[n] }; }

// announces: whether the status says which image it is.
function chooseOnMap(n, announces = true) {
  const hadFocus = $("map-point").contains(document.activeElement);
  atlas.current = n;
  $("map-point").hidden = n < 0;
  if (n >= 0) {
    const { key, name } = mapImage(n), score = atlas.scores.get(key);
    Object.assign($("map-picture"), { src: `api/thumbnail/${key}`, alt: name });
    $("map-image-name").textContent = name;
    $("map-image-score").textContent = score === undefined ? "" : `score ${score.toFixed(3)}`;
    showMapSelection();
    const [left, top] = onCanvas(atlas.answer.x[n], atlas.answer.y[n]), canvas = $("map-canvas");
    if (left < 0 || top < 0 || left > canvas.clientWidth || top > canvas.clientHeight) [atlas.x, atlas.y] = [atlas.answer.x[n], atlas.answer.y[n]];
    if (announces) announceOnMap(name, score);
  } else if (hadFocus) $("map-canvas").focus();
  drawMap();
}

function announceOnMap(name, score) {
  const selected = state.selectedKeys.has(mapImage(atlas.current).key) ? ", selected" : "";
  $("map-status").textContent = `${name}${score === undefined ? "" : `, score ${score.toFixed(3)}`}${selected}`;
}

function toggleOnMap() {
  if (atlas.current < 0) return;
  toggleSelected(mapImage(atlas.current));
  announceOnMap(mapImage(atlas.current).name, atlas.scores.get(mapImage(atlas.current).key));
}

function searchFromMap() {
  if (atlas.current < 0) return;
  const image = mapImage(atlas.current);
  $("map").close();
  searchSimilar(image, null);
}

function hoverOnMap(n, left, top) {
  if (n === atlas.hovered) return;
  atlas.hovered = n;
  $("map-hover").hidden = n < 0;
  if (n < 0) return;
  const { key, name } = mapImage(n), canvas = $("map-canvas");
  $("map-hover").querySelector("img").src = `api/thumbnail/${key}`;
  $("map-hover").querySelector("span").textContent = name;
  $("map-hover").style.left = left < canvas.clientWidth / 2 ? `${left + 14}px` : "auto";
  $("map-hover").style.right = left < canvas.clientWidth / 2 ? "auto" : `${canvas.clientWidth - left + 14}px`;
  $("map-hover").style.top = top < canvas.clientHeight / 2 ? `${top}px` : "auto";
  $("map-hover").style.bottom = top < canvas.clientHeight / 2 ? "auto" : `${canvas.clientHeight - top}px`;
}

// Selection

// Called for every change of the selection.
function showMapSelection() {
  if (!$("map").open) return;
  const selected = atlas.current >= 0 && state.selectedKeys.has(mapImage(atlas.current).key);
  $("map-select").setAttribute("aria-pressed", String(selected));
  $("map-select").textContent = selected ? "In selection" : "Add to selection";
  $("map-count").textContent = `${state.selectedKeys.size.toLocaleString("en")} selected`;
  $("map-undo").setAttribute("aria-disabled", String(!changes.length));
  drawMap();
}

function selectOnMap(isInside) {
  const { keys, x, y } = atlas.answer, inside = keys.filter((_, n) => isInside(...onCanvas(x[n], y[n])));
  const before = state.selectedKeys.size;
  changeSelection(inside, true);
  $("map-status").textContent = `${plural(inside.length, "image")} inside, ${state.selectedKeys.size - before} newly selected.`;
}

// Whether a position is inside a polygon: a line from it to the right crosses the edges an odd number of times.
function isInPolygon([x, y], corners) {
  let inside = false;
  corners.forEach(([x1, y1], n) => {
    const [x0, y0] = corners.at(n - 1);
    if ((y0 > y) !== (y1 > y) && x < (x1 - x0) * (y - y0) / (y1 - y0) + x0) inside = !inside;
  });
  return inside;
}

// Mouse and touch: drag to move, with two fingers to zoom, with Shift or the lasso switched on to select.

function canvasPosition(event) {
  const edges = $("map-canvas").getBoundingClientRect();
  return [event.clientX - edges.left, event.clientY - edges.top];
}

$("map-canvas").addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !atlas.answer) return;
  const position = canvasPosition(event);
  $("map-canvas").setPointerCapture(event.pointerId);
  atlas.pointers.set(event.pointerId, position);
  const lassos = event.shiftKey || $("map-lasso").getAttribute("aria-pressed") === "true";
  if (atlas.pointers.size === 1) Object.assign(atlas, { moved: false, lasso: lassos ? [position] : null });
  else Object.assign(atlas, { moved: true, lasso: null });
});

$("map-canvas").addEventListener("pointermove", (event) => {
  const position = canvasPosition(event), before = atlas.pointers.get(event.pointerId);
  if (!before) return hoverOnMap(event.pointerType === "touch" ? -1 : nearestPoint(...position), ...position);
  hoverOnMap(-1);
  if (atlas.pointers.size === 1 && !atlas.lasso && !atlas.moved && Math.hypot(position[0] - before[0], position[1] - before[1]) < 4) return;
  atlas.moved = true;
  if (atlas.lasso) { atlas.lasso.push(position); drawMap(); }
  else if (atlas.pointers.size === 1) moveMap(position[0] - before[0], position[1] - before[1]);
  else {
    const [, other] = [...atlas.pointers].find(([id]) => id !== event.pointerId), between = ([x, y]) => Math.hypot(x - other[0], y - other[1]);
    moveMap((position[0] - before[0]) / 2, (position[1] - before[1]) / 2);
    zoomMap(between(position) / Math.max(1, between(before)), (position[0] + other[0]) / 2, (position[1] + other[1]) / 2);
  }
  atlas.pointers.set(event.pointerId, position);
});

$("map-canvas").addEventListener("pointerup", (event) => {
  const { lasso } = atlas, isLast = atlas.pointers.delete(event.pointerId) && !atlas.pointers.size;
  atlas.lasso = null;
  drawMap();
  if (!isLast) return;
  if (lasso?.length >= LEAST_LASSO) return selectOnMap((...position) => isInPolygon(position, lasso));
  if (atlas.moved && !lasso) return;
  const n = nearestPoint(...canvasPosition(event), event.pointerType === "touch" ? 2 * NEAR : NEAR);
  chooseOnMap(n);
  if (n >= 0 && (event.ctrlKey || event.metaKey || lasso)) toggleOnMap();
});
$("map-canvas").addEventListener("pointercancel", (event) => { atlas.pointers.delete(event.pointerId); atlas.lasso = null; drawMap(); });
$("map-canvas").addEventListener("pointerleave", () => hoverOnMap(-1));
$("map-canvas").addEventListener("wheel", (event) => {
  event.preventDefault();
  hoverOnMap(-1);
  zoomMap(event.deltaY < 0 ? MAP_ZOOM : 1 / MAP_ZOOM, ...canvasPosition(event));
}, { passive: false });

// Keyboard and buttons

$("map-canvas").addEventListener("keydown", (event) => {
  if (hasModifier(event) || !atlas.answer?.keys.length) return;
  const { clientWidth: width, clientHeight: height } = $("map-canvas");
  const pans = { ArrowRight: [-1, 0], ArrowLeft: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] }[event.key];
  if (pans && event.shiftKey) moveMap(pans[0] * width / 5, pans[1] * height / 5);
  else if (pans) {
    const next = atlas.current < 0 ? nearestPoint(width / 2, height / 2, Infinity) : pointTowards(event.key);
    if (next >= 0) chooseOnMap(next);
  } else if (event.key === " ") toggleOnMap();
  else if (event.key === "Enter" || event.key === "m") searchFromMap();
  else if (event.key === "+") zoomMap(MAP_ZOOM);
  else if (event.key === "-") zoomMap(1 / MAP_ZOOM);
  else if (event.key === "0") showWholeMap();
  else return;
  event.preventDefault();
});

$("map-lasso").addEventListener("click", () => $("map-lasso").setAttribute("aria-pressed", String($("map-lasso").getAttribute("aria-pressed") !== "true")));
$("map-select-view").addEventListener("click", () => {
  const { clientWidth: width, clientHeight: height } = $("map-canvas");
  selectOnMap((left, top) => left >= 0 && top >= 0 && left <= width && top <= height);
});
$("map-zoom-in").addEventListener("click", () => zoomMap(MAP_ZOOM));
$("map-zoom-out").addEventListener("click", () => zoomMap(1 / MAP_ZOOM));
$("map-whole").addEventListener("click", showWholeMap);
$("map-select").addEventListener("click", toggleOnMap);
$("map-similar").addEventListener("click", searchFromMap);
$("map-undo").addEventListener("click", () => { undoSelection(); $("map-status").textContent = describeMap(atlas.answer); });
$("map-colour").addEventListener("change", showMapColours);
$("map-open").addEventListener("click", openMap);
$("map-close").addEventListener("click", () => $("map").close());
$("map").addEventListener("close", () => { clearTimeout(atlas.timer); atlas.timer = 0; hoverOnMap(-1); atlas.pointers.clear(); });
new ResizeObserver(drawMap).observe($("map-canvas"));
