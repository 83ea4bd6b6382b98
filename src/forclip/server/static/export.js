// Export of a selection, a list of any kind or the verdicts.

const FORMATS = {
  coco: "COCO JSON", csv: "CSV", cvat: "CVAT (zip)", fiftyone: "FiftyOne (zip)", files: "File list",
  labelstudio: "Label Studio JSON", yolo: "YOLO (zip)",
};
const LIST_PATHS = { search: "api/export", similar: "api/export/similar", upload: "api/export/upload" };
const MOST_LEFT_OUT = 10000;  // images in one request

function exportChoices() {
  const { right = [], wrong = [] } = verdictFields(state.request);
  return [
    state.selectedKeys.size && option("selection", `Selection “${state.selection}” (${plural(state.selectedKeys.size, "image")})`),
    ...listChoices(),
    right.length + wrong.length && option("verdicts", `Verdicts (${right.length} right, ${wrong.length} wrong)`),
  ].filter(Boolean);
}

// All results above the cut-off, and where some of these are not loaded yet also those that are.
function listChoices() {
  if (!(state.request?.kind in LIST_PATHS) || !state.results.length) return [];
  const leftOut = new Set(leftOutKeys()), kept = state.results.filter((result) => isKept(result) && !leftOut.has(result.key));
  const name = hasCutoff() ? "All results above the cut-off" : "All results", count = plural(kept.length, "image");
  if (state.complete || isCut()) return [kept.length && option("all", `${name} (${count})`)];
  const all = option("all", `${name} (at most ${state.mostListed.toLocaleString("en")})`), loaded = kept.length && option("list", `Results shown now (${count})`);
  return hasCutoff() ? [all, loaded] : [loaded, all];
}

// Images that the list leaves out: wrong ones, and where reviewed ones are hidden all of these.
function leftOutKeys() {
  const { right = [], wrong = [] } = verdictFields(state.request);
  return view.hideReviewed ? [...right, ...wrong] : isRanked(state.request) ? [] : wrong;
}

function listFields(what) {
  const { request } = state, leftOut = leftOutKeys(), k = what === "all" ? state.mostListed : state.results.filter(isKept).length;
  if (leftOut.length > MOST_LEFT_OUT) throw new Error(`At most ${MOST_LEFT_OUT.toLocaleString("en")} images with a verdict can be left out of an export, not ${leftOut.length.toLocaleString("en")}.`);
  return { ...requestFields(request), k, ...cutoffFields(), ...(leftOut.length ? { leave_out: leftOut } : {}) };
}

function labelHelp(what) {
  if (what === "verdicts") return "The class that training reads the verdicts for.";
  if (what === "selection") return "Used to find the region in each image. Leave empty to export without regions.";
  const { request } = state, left = leftOutKeys().length ? ` ${view.hideReviewed ? "Images with a verdict" : "Images marked as wrong"} are left out.` : "";
  return (request.kind === "search" ? "The class in the exported file. Leave empty to use the search text." : "What the images show. Leave empty to export without a class.") + left;
}

function openExport(preferred) {
  const choices = exportChoices();
  if (!choices.length) return showStatus("Nothing to export. Search for a text or select images first.");
  $("what").replaceChildren(...choices);
  if (choices.some((choice) => choice.value === preferred)) $("what").value = preferred;
  $("label").value = singleText(state.request);
  $("format").value = remembered("format", "csv");
  updateExportForm();
  $("export-error").hidden = true;
  if ($("detail").open) $("detail").close();
  $("exporting").showModal();
}

function updateExportForm() {
  const what = $("what").value;
  $("format").disabled = what === "verdicts";
  if (what === "verdicts") $("format").value = "csv";
  const hasLabel = ["all", "list"].includes(what) && state.request.kind === "search";
  $("label").required = what === "verdicts" || (!hasLabel && $("format").value === "yolo");
  $("label-help").textContent = labelHelp(what);
}

async function fetchExport() {
  await sending;  // the service must know the selection as it is shown
  const what = $("what").value, label = $("label").value.trim(), format = $("format").value;
  switch (what) {
    case "verdicts": return fetchResponse("api/export/verdicts", { json: { label, ...verdictFields(state.request) } });
    case "selection": return fetchResponse(`${selectionPath(state.selection)}/export?${new URLSearchParams(label ? { format, text: label } : { format })}`);
    default: {
      const { kind } = state.request, fields = { ...listFields(what), format, ...(label ? { label } : {}) };
      return fetchResponse(LIST_PATHS[kind], kind === "upload" ? { method: "POST", body: formOf(fields) } : { json: fields });
    }
  }
}

async function download(response) {
  const link = element("a");
  link.href = URL.createObjectURL(await response.blob());
  const [, encoded, name] = /filename\*=utf-8''([^;]+)|filename="([^"]+)"/.exec(response.headers.get("Content-Disposition"));
  link.download = name ?? decodeURIComponent(encoded);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

$("exporting-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("export-now").disabled = true;
  $("export-now").textContent = "Exporting …";
  $("export-error").hidden = true;
  try {
    const response = await fetchExport(), leftOut = response.headers.get("Forclip-Left-Out");
    await download(response);
    if ($("what").value !== "verdicts") remember("format", $("format").value);
    if (leftOut) throw new Error(`Exported. ${decodeURIComponent(leftOut)}`);
    $("exporting").close();
  } catch (error) {
    $("export-error").textContent = error.message;
    $("export-error").hidden = false;
  } finally {
    $("export-now").disabled = false;
    $("export-now").textContent = "Export";
  }
});
$("format").replaceChildren(...Object.entries(FORMATS).map(([value, text]) => option(value, text)));
for (const id of ["what", "format"]) $(id).addEventListener("change", updateExportForm);
$("exporting-cancel").addEventListener("click", () => $("exporting").close());
$("export").addEventListener("click", () => openExport());
