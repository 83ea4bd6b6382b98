// Search with several images: those of the selection.

const MOST_LIKED = 50;  // images in one search: of a larger selection the latest

// name: what the images are called, above the results and in the address.
function severalRequest(keys, name) {
  return { kind: "similar", fields: { keys, ...filterField() }, name, target: `similar to ${name}` };
}

const searchSelection = showingErrors(async () => {
  const all = [...state.selectedKeys], keys = all.slice(-MOST_LIKED);
  if (!keys.length) return showStatus("Select images first, then search for more like these.");
  const count = keys.length < all.length ? `the latest ${keys.length} of ` : "";
  state.text = "";
  state.latest = severalRequest(keys, `${count}${plural(all.length, "image")} of “${state.selection}”`);
  writeAddress();
  await search(state.latest);
  focusCard(0);
});
$("like-selection").addEventListener("click", searchSelection);
