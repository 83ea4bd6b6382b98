// Review queue: the images above the cut-off one after the other, for verdicts and for an estimate of the precision.
// The service keeps the queue: it decides which images it has, and knows how many are reviewed.

const QUEUE_KEYS = { y: "right", "+": "right", n: "wrong", "-": "wrong", " ": "skip" };
const PRELOADED = 2;  // images after the current one
const QUEUE_ORDERS = {
  probability: "The least certain images come first: those with probabilities near 50 %.",
  cutoff: "This list has no probabilities, so images with scores near the cut-off come first.",
  median: "This list has no probabilities and no cut-off, so images with scores near the median come first.",
};
const queueStates = new Map();  // by search, as the service sent them
const queue = {
  id: "",              // given by the service
  body: null,          // of the request that opened it
  target: "",          // ends its title
  entries: [],         // as the service sent them, with the verdicts given since
  position: 0,         // how many of them are reviewed
  order: "",           // a key of QUEUE_ORDERS
  turn: 0,             // counts openings: answers of an earlier one are dropped
  sending: Promise.resolve(),
  closed: Promise.resolve(),
  preloaded: [],       // images
  listAddress: "",     // of the page when the queue was opened
  isPushed: false,     // whether the queue's address is a new one in the browser's history
  isLeaving: false,    // whether the browser goes back because the queue was closed
};

// Addresses

function addressWith(review) {
  const parameters = new URLSearchParams(location.hash.slice(1));
  if (review) parameters.set("review", review); else parameters.delete("review");
  return `#${parameters}`;
}

function cutoffAddress({ k, min_probability, min_score }) {
  return k ? `first ${k}` : min_probability !== undefined ? `probability ${min_probability}` : min_score !== undefined ? `score ${min_score}` : "all";
}

function cutoffOfAddress(text) {
  const [kind, value] = text.split(" "), name = { first: "k", probability: "min_probability", score: "min_score" }[kind];
  return name && Number.isFinite(Number(value)) ? { [name]: Number(value) } : {};
}

async function openAddressedQueue(parameters) {
  const review = parameters.get("review");
  if (review && state.request) await openQueue(cutoffOfAddress(review));
}

// Close the queue after the address has changed. Return whether the address is now that of the list that is shown.
function leaveQueue() {
  if (new URLSearchParams(location.hash.slice(1)).has("review")) return false;
  const left = queue.isLeaving || $("review").open;
  queue.isLeaving = false;
  if ($("review").open) $("review").close();
  return left && location.hash === queue.listAddress;
}

// Opening

function canReview() {
  const { request } = state, id = searchId(request);
  return id !== null && Boolean(singleText(request) || request.fields.key || request.fields.keys) && state.results.length > 0;
}

function showReviewButton() { $("review-open").hidden = !canReview(); }

// cutoff: API fields; by default those of the page, or the recommended cut-off where there is none.
const openQueue = showingErrors(async (cutoff = null) => {
  if (!canReview()) return showStatus("A review needs the results of one text or of images from the collection.");
  const { request } = state, id = searchId(request), { key, keys, box, where } = request.fields;
  const wasRanked = isRanked(request);
  unranked.add(id);  // the queue is of the plain list, which verdicts must not change
  if (wasRanked) await rankAgain();
  if (state.request !== request) return;
  if (!cutoff && !hasCutoff() && state.confidence?.cutoff) await useRecommended();
  const list = singleText(request) ? { text: singleText(request) } : keys ? { keys } : { key, ...(box ? { box } : {}) };
  const body = { search: id, ...list, ...(where ? { where } : {}), ...(cutoff ?? cutoffFields()) };
  queue.target = `results ${request.target}`;
  await fetchQueue(body);
  const hash = addressWith(cutoffAddress(body)), isNew = location.hash !== hash;
  Object.assign(queue, { listAddress: addressWith(null), isPushed: isNew });
  if (isNew) window.history.pushState(null, "", hash);
  if (!$("review").open) $("review").showModal();
  focusQueue();
});

async function fetchQueue(body, again = false) {
  await queue.sending;
  await sendingVerdicts;
  const answer = await call(reviewerPath("/queue"), { json: again ? { ...body, again } : body });
  Object.assign(queue, { body, id: answer.queue, entries: answer.entries, position: answer.position, order: answer.order, turn: queue.turn + 1, preloaded: [] });
  queueStates.set(body.search, answer);
  showQueueError(null);
  showQueue();
}

// Answers

// Show the next image at once, and send the answer in the background, one after the other.
function answerQueue(answer) {
  const entry = queue.entries[queue.position];
  if (!entry) return;
  entry.before = entry.verdict;
  if (answer !== "skip") entry.verdict = answer;
  sendQueue("answer", { position: queue.position, answer });
  queue.position += 1;
  showQueue();
}

function undoQueue() {
  if (!queue.position || !queue.entries.length) return;
  const wasDone = queue.position === queue.entries.length;
  do {
    sendQueue("undo", { position: queue.position });
    queue.position -= 1;
    const entry = queue.entries[queue.position];
    entry.verdict = entry.before ?? null;
  } while (queue.position && !queue.entries[queue.position].image);
  showQueue();
  if (wasDone) focusQueue();
}

function sendQueue(part, fields) {
  const { turn, id, body: { search } } = queue;
  queue.sending = queue.sending.then(async () => {
    if (turn !== queue.turn) return;  // an earlier answer failed
    try {
      queueStates.set(search, await call(reviewerPath(`/queue/${part}`), { json: { search, queue: id, ...fields }, keepalive: true }));
      if (turn === queue.turn) showPrecision();
    } catch (error) {
      if (turn === queue.turn) showQueueError(error);
    }
  });
}

// After an error the service decides again where the reviewer is.
function showQueueError(error) {
  $("review-error").hidden = !error;
  $("review-error-text").textContent = error?.message ?? "";
  if (!error) return;
  Object.assign(queue, { entries: [], position: 0, turn: queue.turn + 1 });
  showQueue();
  $("review-retry").focus();
}

// Drawing. No element that may have the focus is replaced.

function showQueue() {
  const { entries } = queue;
  while (entries[queue.position] && !entries[queue.position].image) {  // deleted since the queue was made
    sendQueue("answer", { position: queue.position, answer: "skip" });
    queue.position += 1;
  }
  const { position } = queue, entry = entries[position], failed = !$("review-error").hidden, done = !entry && !failed;
  $("review-name").textContent = `Review ${queue.target}`;
  $("review-stage").hidden = !entry;
  $("review-done").hidden = !done;
  for (const id of ["review-actions", "review-facts"]) $(id).hidden = failed;
  if (entry) showQueued(entry); else $("review-facts").textContent = "";
  for (const name of ["right", "wrong"]) $(`review-${name}`).setAttribute("aria-pressed", String(entry?.verdict === name));
  $("review-status").textContent = failed ? "" : `${position.toLocaleString("en")} of ${entries.length.toLocaleString("en")} reviewed`;
  Object.assign($("review-progress"), { max: entries.length || 1, value: entries.length ? position : 1 });
  $("review-order").textContent = done ? "" : QUEUE_ORDERS[queue.order] ?? "";
  showPrecision();
  // A button that is disabled or hidden would take the focus with it.
  if (done && $("review").open) $("review-done").focus();
  else if (!position && document.activeElement === $("review-undo")) focusQueue();
  for (const name of ["right", "wrong", "skip"]) $(`review-${name}`).disabled = !entry;
  $("review-undo").disabled = !position;
  queue.preloaded = entries.slice(position + 1, position + 1 + PRELOADED).filter((next) => next.image)
    .map((next) => Object.assign(new Image(), { src: `api/image/${next.image.key}` }));
}

function showQueued({ image, drawn }) {
  const picture = $("review-picture");
  const shown = showImage(image, `api/image/${image.key}`, picture);
  shown.alt = image.name;
  shown.addEventListener("error", () => { if (picture.contains(shown)) $("review-facts").textContent = `${image.name} can’t be shown. Its file is missing or has changed.`; });
  const ratio = image.width && image.height ? image.width / image.height : 1;
  picture.style.width = `min(100%, ${ratio} * var(--review-height))`;
  picture.style.height = "auto";
  const value = image.probability === null ? `score ${image.score.toFixed(3)}` : `probability ${percent(image.probability)} %`;
  $("review-facts").textContent = `${image.name}, ${value}, ${drawn ? "drawn at random to measure precision" : "among the least certain"}`;
}

function showPrecision() {
  const now = queueStates.get(queue.body?.search);
  if (!now) return;
  $("review-precision").textContent = describePrecision(now.precision);
  const { precision: { images, low, high }, length } = now, { entries } = queue;
  $("review-result").textContent = length ? `${length === 1 ? "The image of this queue is" : `All ${plural(length, "image")} of this queue are`} reviewed` : `${images === 1 ? "The first result has" : `All of ${firstResults(images)} have`} a verdict`;
  const count = (verdict) => entries.filter((entry) => entry.verdict === verdict).length;
  $("review-counts").textContent = length ? `${count("right")} right, ${count("wrong")} wrong, ${count(null)} skipped.` : "";
  $("review-again").hidden = high - low < 1e-9;  // every image has a verdict
}

function firstResults(count) { return count === 1 ? "the first result" : `the first ${plural(count, "result")}`; }

function describePrecision({ images, drawn, precision, low, high, enough_data }) {
  const list = `Precision of ${firstResults(images)}`;
  if (!enough_data) return `${list}: not enough data yet (${drawn} drawn at random with a verdict).`;
  const exact = high - low < 1e-9 ? "" : `, 95 % interval ${Math.floor(100 * low + 1e-9)}–${Math.ceil(100 * high - 1e-9)} %`;
  return `${list}: ${Math.round(100 * precision)} %${exact}.`;
}

// What the latest queue says about the current list, for the line about verdicts.
function listPrecision() {
  const now = queueStates.get(searchId(state.request));
  return now?.position && now.precision.enough_data ? ` ${describePrecision(now.precision)}` : "";
}

function focusQueue() { (queue.entries[queue.position] ? $("review-picture") : $("review-done")).focus({ preventScroll: true }); }

// Buttons and keys

$("review-open").addEventListener("click", () => openQueue());
$("review-close").addEventListener("click", () => $("review").close());
$("review-undo").addEventListener("click", undoQueue);
for (const answer of ["right", "wrong", "skip"]) {
  $(`review-${answer}`).addEventListener("click", (event) => {
    answerQueue(answer);
    if (event.detail) focusQueue();  // after a click Space must skip, not press the button again
  });
}
const againOr = (again) => async () => {
  try { await fetchQueue(queue.body, again); focusQueue(); } catch (error) { showQueueError(error); }
};
$("review-again").addEventListener("click", againOr(true));
$("review-retry").addEventListener("click", againOr(false));
$("review-export").addEventListener("click", () => {
  $("review").addEventListener("close", () => queue.closed.then(() => openExport("verdicts")), { once: true });
  $("review").close();
});

$("review").addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase(), isUndo = (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey && key === "z";
  if (!isUndo && (hasModifier(event) || (key !== "u" && !(key in QUEUE_KEYS)))) return;
  if (key === " " && event.target.matches("button")) return;
  event.preventDefault();
  event.stopPropagation();
  if (event.repeat) return;
  if (key in QUEUE_KEYS) answerQueue(QUEUE_KEYS[key]); else undoQueue();
});

// The list keeps its order. What was said is marked on its images.
const showReviewed = showingErrors(async () => {
  await queue.sending;
  await loadReviews();
  if (!state.request || isColumns()) return;
  showVerdicts();
  applyCutoff();
  if (document.activeElement === document.body && state.shown.length) focusCard(Math.max(0, state.shown.indexOf(state.current)), false);
});
$("review").addEventListener("close", () => {
  if (location.hash !== addressWith(null)) {
    queue.isLeaving = queue.isPushed;
    if (queue.isPushed) window.history.back(); else window.history.replaceState(null, "", addressWith(null));
  }
  queue.closed = showReviewed();
});
