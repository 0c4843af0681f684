// Search, filter, switches, the table view, and the dock that shows one interpretation in full.
// An example is drawn when the reader comes near it.
const FEW_VECTORS = 12; // that a grid shows side by side
const WHAT = { vector: "vector", difference: "difference", mean: "no.", segment: "no." }; // anything else is a token

const $ = (id) => document.getElementById(id);
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const views = [...document.querySelectorAll(".view")];
const readingOf = data.examples.map(() => 0); // which one each example shows
const drawn = data.examples.map(() => null); // { grid } or { rows: Map of tr → cell }
const rowCells = new WeakMap();
let query = "", least = 0, surest = 0, asTable = false, hits = [], hitAt = -1, told = null;

const trusted = (cell) => surest === 0 || failed(cell) || cell[TRUST] >= surest;
const passes = (cell) => least === 0 && surest === 0 || (!failed(cell) && cell[MEAN] >= least && trusted(cell));
const isHit = (cell) => query !== "" && passes(cell) && !failed(cell) && lowerOf(cell).includes(query);

function showAs(table) {
  asTable = table;
  $("table").setAttribute("aria-pressed", asTable);
  document.body.classList.toggle("table", asTable);
  views.forEach((_, number) => redraw(number));
}

// --- search and filter ---
function mark(shown, cell) {
  const hit = isHit(cell);
  shown.classList.toggle("hit", hit);
  shown.classList.toggle("dim", query !== "" ? !hit : !passes(cell));
  return hit;
}

function markInGrid(td, cell) {
  const was = td.classList.contains("hit") || td.classList.contains("hidden");
  const hit = mark(td, cell), hidden = !trusted(cell);
  td.classList.toggle("hidden", hidden);
  if (hidden) td.setAttribute("aria-label", "hidden");
  else td.removeAttribute("aria-label");
  if (hidden) td.textContent = "·"; // the dock still tells it to whoever goes there
  else if (hit) td.textContent = lineAround(textOf(cell), lowerOf(cell).indexOf(query)); // the cell is cut to fit: show what was found
  else if (was) td.textContent = cellText(cell);
}

function markDrawn(number) {
  drawn[number]?.grid?.markAll();
  drawn[number]?.body?.querySelectorAll("tr").forEach((row) => mark(row, rowCells.get(row)));
}

function refresh() {
  const counts = new Map();
  let shown = 0, all = 0;
  hits = [];
  hitAt = -1;
  data.examples.forEach((example, number) => example.readings.forEach((reading, position) => {
    const found = reading.cells.filter(isHit);
    all += reading.cells.length;
    shown += reading.cells.filter(passes).length;
    for (const key of [`${number}/${position}`, `${number}`]) counts.set(key, (counts.get(key) ?? 0) + found.length);
    for (const cell of found) hits.push({ number, position, cell });
  }));
  for (const badge of document.querySelectorAll(".badge")) badge.textContent = counts.get(badge.dataset.hits) || "";
  const layers = hits.map((hit) => hit.cell[LAYER]).filter((layer) => layer !== null);
  const lowest = layers.length ? `, lowest layer ${layers.reduce((a, b) => Math.min(a, b))}` : "";
  $("count").textContent = query !== "" ? count(hits.length, "match", "matches") + lowest
    : least > 0 || surest > 0 ? `${shown.toLocaleString("en")} of ${count(all, "cell", "cells")}` : "";
  $("next").disabled = $("previous").disabled = hits.length === 0;
  drawn.forEach((_, number) => markDrawn(number));
}

function search() {
  query = $("search").value.toLowerCase();
  refresh();
}

function goToHit(way) {
  if (!hits.length) return;
  hitAt = hitAt < 0 ? (way > 0 ? 0 : hits.length - 1) : (hitAt + way + hits.length) % hits.length;
  const { number, position, cell } = hits[hitAt];
  if (readingOf[number] !== position) choose(number, position);
  draw(number);
  const shown = drawn[number].grid ? drawn[number].grid.goTo(cell) : [...drawn[number].body.rows].find((row) => rowCells.get(row) === cell);
  shown?.scrollIntoView({ block: "center", inline: "nearest", behavior: "instant" });
}

// --- drawing ---
const watch = new IntersectionObserver((seen) => {
  for (const { isIntersecting, target } of seen) if (isIntersecting) draw(Number(target.dataset.example));
}, { rootMargin: "100% 0px" });

function draw(number) {
  if (drawn[number]) return;
  watch.unobserve(views[number]);
  views[number].style.minHeight = "";
  if (asTable) {
    drawTable(number);
    return;
  }
  const example = data.examples[number];
  const grid = new Grid(example, example.readings[readingOf[number]], views[number].clientWidth, {
    mark: markInGrid,
    chosen: (cell) => { told = [number, cell]; tell(number, cell); },
  });
  drawn[number] = { grid };
  views[number].replaceChildren(grid.node);
  grid.show();
}

function redraw(number) {
  const { layers, readings } = data.examples[number];
  const rows = asTable ? readings.reduce((sum, reading) => sum + reading.cells.length, 1) : layers.length + 2;
  drawn[number] = null;
  views[number].replaceChildren();
  views[number].style.minHeight = `min(${24 * rows}px, 75vh)`; // so that the page does not jump
  watch.observe(views[number]);
}

function choose(number, position) {
  readingOf[number] = position;
  document.getElementsByName(`reading-${number}`)[position].checked = true;
  redraw(number);
  draw(number);
}

// --- the table: the same data for reading aloud and copying ---
function drawTable(number) {
  const example = data.examples[number];
  const cells = example.readings.flatMap((reading) => reading.cells.map((cell) => [reading.label, cell]));
  const { node, body } = plainTable(example, cells, (row, cell) => {
    rowCells.set(row, cell);
    mark(row, cell);
  });
  drawn[number] = { body };
  views[number].replaceChildren(node);
}

// --- the dock ---
function tell(number, cell) {
  const example = data.examples[number], words = $("words");
  const [index, text, source] = example.columns.find((column) => column[0] === cell[TOKEN]);
  const reading = example.readings[readingOf[number]];
  const place = [example.name, cell[LAYER] === null ? "" : `layer ${cell[LAYER]}`, `${WHAT[source] ?? "token"} ${index} ${text.slice(0, SHOWN)}`, reading.label];
  const parts = place.filter(Boolean).map((name) => element("b", "", name));
  if (failed(cell)) {
    words.replaceChildren(element("span", "failed", cell[MEAN]));
  } else {
    parts.push(element("span", "", `mean relevancy ${decimal(cell[MEAN])}`), element("span", "", `mean probability ${decimal(mean(cell[PROBABILITY]))}`),
      element("span", "", `trust ${percent(cell[TRUST])}`));
    if (cell[SAMPLES]) parts.push(element("span", "", `agreement ${agreement(cell)}`));
    if (typeof cell[TEXTS] === "string") words.textContent = cell[TEXTS];
    else words.replaceChildren(...cell[TEXTS].map((word, at) => wordOf(word, cell[RELEVANCY][at], cell[PROBABILITY][at])));
  }
  $("contexts").replaceChildren(...contextsOf(cell, "li"));
  $("dock").scrollTop = words.scrollTop = 0;
  $("place").replaceChildren(...parts, element("span", "word"));
}

// --- controls ---
let byKeyboard = false; // then cells move under a pointer that nobody moves
document.addEventListener("keydown", () => { byKeyboard = true; });
for (const moved of ["pointermove", "pointerdown", "wheel"]) document.addEventListener(moved, () => { byKeyboard = false; }, { passive: true });
document.addEventListener("pointerover", ({ target }) => {
  if (byKeyboard) return;
  const number = Number(target.closest?.(".view")?.dataset.example);
  const cell = drawn[number]?.grid?.cellOf.get(target);
  if (cell) tell(number, cell);
  else if (target.parentNode === $("words")) $("place").querySelector(".word").textContent = target.title;
  else if (told && !target.closest?.("#dock")) tell(...told); // back to the cell that was chosen
});
document.addEventListener("change", ({ target }) => {
  const match = /^reading-(\d+)$/.exec(target.name ?? "");
  if (match) choose(Number(match[1]), Number(target.value));
});
document.addEventListener("click", ({ target }) => {
  const button = target.closest?.(".find-answer");
  if (!button) return;
  $("search").value = button.dataset.answer;
  search();
});
$("search").addEventListener("input", search);
$("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter") goToHit(event.shiftKey ? -1 : 1);
});
$("next").addEventListener("click", () => goToHit(1));
$("previous").addEventListener("click", () => goToHit(-1));
$("least").addEventListener("input", () => {
  least = Number($("least").value);
  $("least-value").textContent = (least / 1000).toFixed(2);
  refresh();
});
$("trust")?.addEventListener("change", () => {
  surest = Number($("trust").value);
  refresh();
});
$("table").addEventListener("click", () => showAs(!asTable));
$("theme").addEventListener("click", () => {
  const root = document.documentElement, set = root.style.colorScheme;
  const dark = set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.style.colorScheme = dark ? "light" : "dark";
});
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) views.forEach((_, number) => drawn[number]?.grid && redraw(number));
  width = innerWidth;
});
addEventListener("beforeprint", () => views.forEach((_, number) => draw(number)));

// Of many vectors a list says more than one row of columns.
showAs(data.examples.some(({ layers, columns }) => layers.every((layer) => layer === null) && columns.length > FEW_VECTORS));
