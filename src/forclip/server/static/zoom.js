// Zoom of the closer look. The zoom and the place in the image stay from image to image, until the closer look closes.

const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
const PAN_STEP = 0.2;  // of what is visible
const DETAIL_STAGE = "var(--stage)";  // height of the part of the closer look that shows the image
// x, y: what is in the middle, as fractions of the image. left, top: where the page itself has scrolled to.
const zoom = { level: 1, x: 0.5, y: 0.5, left: 0, top: 0 };

// Fit an image into the closer look, enlarged by the zoom. Its width and height are 0 if not known.
function fitPicture({ width, height }) {
  const fitted = width && height ? `min(100%, ${DETAIL_STAGE} * ${width / height})` : "100%";
  $("detail-picture").style.width = `calc(${zoom.level} * ${fitted})`;
  $("detail-picture").style.height = "auto";
  showPlace();
}

function showPlace() {
  const shown = $("detail-view");
  shown.scrollTo(zoom.x * shown.scrollWidth - shown.clientWidth / 2, zoom.y * shown.scrollHeight - shown.clientHeight / 2);
  Object.assign(zoom, { left: shown.scrollLeft, top: shown.scrollTop });
}

// x, y: the place in the image that stays where it is, by default the middle.
function setZoom(level, x = zoom.x, y = zoom.y) {
  const part = zoom.level / level;
  Object.assign(zoom, { level, x: clamp(x + (zoom.x - x) * part), y: clamp(y + (zoom.y - y) * part) });
  showZoom();
  if (state.results[state.openIndex]) fitPicture(state.results[state.openIndex]);
}

function changeZoom(step, x, y) { setZoom(ZOOMS[clamp(ZOOMS.indexOf(zoom.level) + step, 0, ZOOMS.length - 1)], x, y); }

function showZoom() {
  $("detail-view").classList.toggle("zoomed", zoom.level > 1);
  $("detail-view").tabIndex = zoom.level > 1 ? 0 : -1;
  $("zoom-level").textContent = `${Math.round(zoom.level * 100)} %`;
  $("zoom-out").setAttribute("aria-disabled", String(zoom.level === ZOOMS[0]));
  $("zoom-in").setAttribute("aria-disabled", String(zoom.level === ZOOMS.at(-1)));
}

function pan(dx, dy) {
  const shown = $("detail-view");
  shown.scrollBy(dx * PAN_STEP * shown.clientWidth, dy * PAN_STEP * shown.clientHeight);
}

// The place changes where the user scrolls, not where an image of another shape has no room for it.
$("detail-view").addEventListener("scroll", () => {
  const shown = $("detail-view"), middle = (start, visible, whole) => (start + visible / 2) / whole;
  if (shown.scrollLeft === zoom.left && shown.scrollTop === zoom.top) return;
  if (shown.scrollWidth > shown.clientWidth) zoom.x = middle(shown.scrollLeft, shown.clientWidth, shown.scrollWidth);
  if (shown.scrollHeight > shown.clientHeight) zoom.y = middle(shown.scrollTop, shown.clientHeight, shown.scrollHeight);
  Object.assign(zoom, { left: shown.scrollLeft, top: shown.scrollTop });
});
$("detail-view").addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  const edges = $("detail-picture").getBoundingClientRect();
  changeZoom(event.deltaY < 0 ? 1 : -1, clamp((event.clientX - edges.left) / edges.width), clamp((event.clientY - edges.top) / edges.height));
}, { passive: false });
$("zoom-in").addEventListener("click", () => changeZoom(1));
$("zoom-out").addEventListener("click", () => changeZoom(-1));
new ResizeObserver(showPlace).observe($("detail-view"));
$("detail").addEventListener("close", () => { Object.assign(zoom, { level: 1, x: 0.5, y: 0.5 }); showZoom(); });

// Captured, so that Shift + arrow keys move a large image before they change it.
$("detail").addEventListener("keydown", (event) => {
  if (hasModifier(event) || state.drawnRegion) return;
  const move = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  if (event.key === "z") changeZoom(1);
  else if (event.key === "Z") changeZoom(-1);
  else if (move && zoom.level > 1 && (event.shiftKey || move[1])) pan(...move);
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);
showZoom();
