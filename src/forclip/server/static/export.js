// Export of a selection, the shown results or the verdicts.

const FORMATS = {
  coco: "COCO JSON", csv: "CSV", cvat: "CVAT (zip)", fiftyone: "FiftyOne (zip)", files: "File list",
  labelstudio: "Label Studio JSON", yolo: "YOLO (zip)",
};
const MAX_EXPORT = 1000;  // results in one file
const LABEL_HELP = {
  selection: "Used to find the region in each image. Leave empty to export without regions.",
  list: "The class in the exported file. Leave empty to use the search text.",
  verdicts: "The class that training reads the verdicts for.",
};

function exportChoices() {
  const { right = [], wrong = [] } = verdictFields(state.request), count = exportCount();
  return [
    state.selectedKeys.size && option("selection", `Selection “${state.selection}” (${plural(state.selectedKeys.size, "image")})`),
    state.request?.kind === "search" && count && option("list", `Results shown now (${plural(count, "image")})`),
    right.length + wrong.length && option("verdicts", `Verdicts (${right.length} right, ${wrong.length} wrong)`),
  ].filter(Boolean);
}

function exportCount() { return Math.min(state.shown.length, MAX_EXPORT); }

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
  $("label").required = what === "verdicts";
  $("label-help").textContent = LABEL_HELP[what];
}

async function fetchExport() {
  await sending;  // the service must know the selection as it is shown
  const what = $("what").value, label = $("label").value.trim(), format = $("format").value;
  switch (what) {
    case "verdicts": return fetchResponse("api/export/verdicts", { json: { label, ...verdictFields(state.request) } });
    case "selection": return fetchResponse(`${selectionPath(state.selection)}/export?${new URLSearchParams(label ? { format, text: label } : { format })}`);
    case "list": {
      const fields = { ...requestFields(state.request), k: exportCount(), format };
      return fetchResponse("api/export", { json: label ? { ...fields, label } : fields });
    }
  }
}

async function download(response) {
  const link = element("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = /filename="([\w.]+)"/.exec(response.headers.get("Content-Disposition"))[1];
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

$("exporting-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("export-now").disabled = true;
  $("export-error").hidden = true;
  try {
    await download(await fetchExport());
    if ($("what").value !== "verdicts") remember("format", $("format").value);
    $("exporting").close();
  } catch (error) {
    $("export-error").textContent = error.message;
    $("export-error").hidden = false;
  } finally { $("export-now").disabled = false; }
});
$("format").replaceChildren(...Object.entries(FORMATS).map(([value, text]) => option(value, text)));
$("what").addEventListener("change", updateExportForm);
$("exporting-cancel").addEventListener("click", () => $("exporting").close());
$("export").addEventListener("click", () => openExport());
