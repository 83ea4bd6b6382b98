// Groups of near duplicates: one card for each, which can be opened. A grouped result has `group`, the key of the first
// image of its group in the list.

const GROUPED_AT_ONCE = 1000;  // results in one request
// open: keys of first images. members: by key of the first image, the indexes of the listed results, in their order.
const groups = { open: new Set(), members: new Map(), work: Promise.resolve() };

function groupOf(result) { return result.group ?? result.key; }

// Group results of a list. earlier: the results before them. One call after the other: each needs the groups before.
function findGroups(results, earlier) {
  const find = async () => {
    const firsts = new Set(earlier.map(groupOf));
    for (let start = 0; start < results.length; start += GROUPED_AT_ONCE) {
      const part = results.slice(start, start + GROUPED_AT_ONCE);
      const answer = await call("api/duplicates", { json: { keys: part.map(({ key }) => key), firsts: [...firsts] } });
      part.forEach((result, n) => { result.group = answer.firsts[n]; firsts.add(result.group); });
    }
  };
  groups.work = groups.work.then(find).catch(showError);
  return groups.work;
}

// Return the indexes to show: of a closed group only the first, of an open one all, one after the other.
function grouped(indexes) {
  groups.members.clear();
  if (!view.groups) return indexes;
  for (const index of indexes) {
    const first = groupOf(state.results[index]), members = groups.members.get(first);
    if (members) members.push(index); else groups.members.set(first, [index]);
  }
  return [...groups.members].flatMap(([first, members]) => (groups.open.has(first) ? members : members.slice(0, 1)));
}

// Return the indexes of the results that a card stands for: all of a closed group, else itself.
function represented(index) {
  const first = groupOf(state.results[index]);
  return groups.open.has(first) ? [index] : groups.members.get(first) ?? [index];
}

function keysAt(indexes) { return indexes.flatMap(represented).map((index) => state.results[index].key); }
function isSelected(index) { return keysAt([index]).every((key) => state.selectedKeys.has(key)); }
function toggleCard(index) { changeSelection(keysAt([index]), !isSelected(index)); }

// Return what is shown in place of a result: itself, or the first of its closed group; undefined if it is not listed.
function shownFor(index) {
  if (state.shown.includes(index)) return index;
  const result = state.results[index], first = result && groups.members.get(groupOf(result))?.[0];
  return state.shown.includes(first) ? first : undefined;
}

function toggleGroup(index) {
  const first = groupOf(state.results[index]), members = groups.members.get(first) ?? [];
  if (members.length < 2) return;
  const opens = !groups.open.has(first);
  if (opens) groups.open.add(first); else groups.open.delete(first);
  applyCutoff();
  focusCard(state.shown.indexOf(opens ? index : members[0]));
  showStatus(`${$("status").textContent} ${opens ? "Opened" : "Closed"} a group of ${members.length}.`);
}

// Show on a card that it is the first of a group, or a member of an open one.
function updateGroup(card) {
  const index = Number(card.dataset.index), first = groupOf(resultOf(card)), members = groups.members.get(first) ?? [];
  const isGroup = members.length > 1, isFirst = isGroup && members[0] === index, isOpen = groups.open.has(first);
  card.querySelector(".group")?.remove();
  card.classList.toggle("stacked", isFirst && !isOpen);
  card.classList.toggle("member", isGroup && isOpen);
  if (!isGroup || (!isFirst && !isOpen)) return;
  const badge = element("span", "group"), selected = members.filter((n) => state.selectedKeys.has(state.results[n].key)).length;
  const some = selected && selected < members.length ? `, ${selected} selected` : "";
  const position = `${members.indexOf(index) + 1} of ${members.length}`;
  const sign = element("span", "", isFirst ? `${isOpen ? "▾" : "▸"} ${members.length}${some}` : position);
  sign.ariaHidden = "true";
  const name = isFirst ? `, group of ${members.length} near duplicates, ${isOpen ? "open" : "closed"}${some}` : `, near duplicate ${position}`;
  badge.append(sign, element("span", "hidden-name", name));
  badge.title = isOpen ? "Close the group (g)" : "Open the group (g)";
  card.querySelector(".frame").append(badge);
}

$("group-duplicates").addEventListener("change", showingErrors(async () => {
  changeView({ groups: $("group-duplicates").checked });
  if (!state.request || isColumns()) return;
  if (view.groups) {
    const start = state.results.findIndex(({ group }) => group === undefined), { turn } = state;
    showStatus("Looking for near duplicates …");
    if (start >= 0) await findGroups(state.results.slice(start), state.results.slice(0, start));
    if (turn !== state.turn) return;
  }
  applyCutoff();
}));
