// A place drawn by hand in the closer look, to find more of what is in it.

const LEAST = 0.02, STEP = 0.02;  // of the picture's width and height

function dropCrop() { setCrop(null); }

// box: fractions of width and height, or null.
function setCrop(box) {
  state.crop = box;
  $("detail-picture").querySelector(".crop")?.remove();
  if (box) {
    const drawn = placeOf(box);
    drawn.className = "place crop";
    $("detail-picture").append(drawn);
  }
  $("mark-place").setAttribute("aria-pressed", String(box !== null));
  $("detail-picture").classList.toggle("marking", box !== null);
  $("like-place").hidden = !box && !state.results[state.open]?.box;
  const size = (from, to) => Math.round((to - from) * 100);
  $("crop-told").textContent = box
    ? `A place ${size(box.x0, box.x1)} % wide and ${size(box.y0, box.y1)} % high. Arrows move it, Shift and arrows resize it, Enter finds more like it, Esc drops it.`
    : "Drag over the picture, or press c, to mark a place.";
}

function toggleCrop() {
  setCrop(state.crop ? null : { x0: 0.25, y0: 0.25, x1: 0.75, y1: 0.75 });
  $("detail-picture").focus({ preventScroll: true });
}

const inside = (v) => Math.min(1, Math.max(0, v));
function moved({ x0, y0, x1, y1 }, dx, dy) {
  const [x, y] = [Math.min(1 - x1, Math.max(-x0, dx)), Math.min(1 - y1, Math.max(-y0, dy))];
  return { x0: x0 + x, y0: y0 + y, x1: x1 + x, y1: y1 + y };
}
function resized({ x0, y0, x1, y1 }, dx, dy) {
  return { x0, y0, x1: Math.min(1, Math.max(x0 + LEAST, x1 + dx)), y1: Math.min(1, Math.max(y0 + LEAST, y1 + dy)) };
}

// Before the keys that go from image to image.
$("detail").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const way = { ArrowRight: [STEP, 0], ArrowLeft: [-STEP, 0], ArrowDown: [0, STEP], ArrowUp: [0, -STEP] }[event.key];
  if (event.key === "c") toggleCrop();
  else if (!state.crop) return;
  else if (way) setCrop((event.shiftKey ? resized : moved)(state.crop, ...way));
  else if (event.key === "Escape") dropCrop();
  else if (event.key === "Enter" && !event.target.matches("button")) alike(state.results[state.open], state.crop);
  else return;
  event.preventDefault();
  event.stopImmediatePropagation();
}, true);

// A finger scrolls, unless a place is marked already; a mouse always draws.
$("detail-picture").addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || (event.pointerType === "touch" && !state.crop)) return;
  event.preventDefault();
  $("detail-picture").focus({ preventScroll: true });
  const edges = $("detail-picture").getBoundingClientRect();
  const at = (e) => [inside((e.clientX - edges.left) / edges.width), inside((e.clientY - edges.top) / edges.height)];
  const [x, y] = at(event);
  const draw = (e) => {
    const [u, v] = at(e), box = { x0: Math.min(x, u), y0: Math.min(y, v), x1: Math.max(x, u), y1: Math.max(y, v) };
    setCrop(box.x1 - box.x0 >= LEAST && box.y1 - box.y0 >= LEAST ? box : null);
  };
  const end = () => { $("detail-picture").removeEventListener("pointermove", draw); };
  $("detail-picture").setPointerCapture(event.pointerId);
  $("detail-picture").addEventListener("pointermove", draw);
  for (const over of ["pointerup", "pointercancel"]) $("detail-picture").addEventListener(over, end, { once: true });
});
$("mark-place").addEventListener("click", toggleCrop);
