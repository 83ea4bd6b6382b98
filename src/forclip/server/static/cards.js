// Cards: an image of a list with its best region, confidence, name and marks.

// Create a card without its image, which loadImage adds. result, index: of state.results.
function createCard(result, index) {
  const card = element("div", "card");
  card.setAttribute("role", "option");
  card.id = `card-${index}`;
  card.tabIndex = -1;
  card.dataset.index = index;
  const frame = element("div", "frame"), picture = element("div", "picture"), line = element("div", "line");
  showImage(result, null, picture, view.fill).addEventListener("error", () => {
    frame.replaceChildren(element("span", "soft", "Image unavailable"));
    updateGroup(card);
  });
  frame.append(picture, ...labelBadge(result));
  const score = result.probability === null ? "" : `, score ${result.score.toFixed(3)}`;
  line.append(element("span", "rank", `${result.rank}`), element("span", "", formatConfidence(result)), element("span", "hidden-name", `, ${result.name}${score}`));
  card.title = `${result.name}\nscore ${result.score.toFixed(3)}`;
  card.append(frame, line, element("span", "select"), ...verdictButtons());
  if (view.names) line.before(Object.assign(element("div", "name", result.name), { ariaHidden: "true" }));
  updateCard(card);
  return card;
}

function formatConfidence(result) { return result.probability === null ? result.score.toFixed(3) : `${percent(result.probability)} %`; }
// Rounded down, so that a minimum of 50 % keeps every result that shows 50 %.
function percent(probability) { return probability > 0 && probability < 0.01 ? "< 1" : String(Math.floor(probability * 100 + 1e-9)); }

// Put an image and the outline of its best region into a container of the image's shape. The container lies within its
// parent, or fills a square parent, which then shows the part around the region.
function showImage(result, source, container, fills = false) {
  const ratio = result.width && result.height ? result.width / result.height : 1, wide = ratio >= 1;
  container.style.aspectRatio = `${ratio}`;
  container.style.width = wide !== fills ? "100%" : "auto";
  container.style.height = wide !== fills ? "auto" : "100%";
  container.classList.toggle("filling", fills);
  if (fills) {
    const box = result.box ?? { x0: 0, y0: 0, x1: 1, y1: 1 };
    container.style.left = `${100 * hiddenPart((box.x0 + box.x1) / 2, ratio)}%`;
    container.style.top = `${100 * hiddenPart((box.y0 + box.y1) / 2, 1 / ratio)}%`;
  }
  const image = Object.assign(element("img"), { loading: "lazy", decoding: "async", alt: "", draggable: false });
  if (source) image.src = source;
  container.replaceChildren(image);
  if (result.box) container.append(createOutline(result.box));
  return image;
}

// Return where an image of some length starts in a frame of length 1, so that a centre in the image is in the middle.
function hiddenPart(centre, length) { return length <= 1 ? 0 : clamp(0.5 - centre * length, 1 - length, 0); }

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

function clamp(value, low = 0, high = 1) { return Math.min(high, Math.max(low, value)); }

// isSeen: whether the card is on the screen. card.arrival: fulfilled when its image is there, or will not come.
function loadImage(card, isSeen = false) {
  if (card.arrival) return;
  const image = card.querySelector("img");
  card.arrival = new Promise((resolve) => { for (const end of ["load", "error"]) image.addEventListener(end, resolve, { once: true }); });
  Object.assign(image, isSeen ? { loading: "eager", fetchPriority: "high" } : {}, { src: `api/thumbnail/${resultOf(card).key}` });
}

// Forget an image that is still on its way.
function stopImage(card) {
  const image = card.querySelector("img");
  if (image && !image.complete) image.removeAttribute("src");
}

function resultOf(card) { return state.results[card.dataset.index]; }

function updateCard(card) {
  card.setAttribute("aria-selected", String(isSelected(Number(card.dataset.index))));
  updateVerdict(card);
  updateGroup(card);
}

// Cards on the page, in order. Of a long list only those near the screen are there.
function cards() { return [...document.querySelectorAll("#grid > .card, #columns .card")]; }
