// The page: a form, one or two boards, and the panel of the chosen cell.
let surest = 0, chosenByReader = false, named = null;
const boards = [];
const outage = new Outage($("banner"), about.model);
const detail = new Detail($("detail"), outage, adopt);
const chips = new Chips($("chips"), $("tokens"));
let laid = null; // what the boards have been laid out for

// --- boards ---
function arrange(wanted) {
  while (boards.length > wanted.length) boards.pop().stop();
  while (boards.length < wanted.length) boards.push(new Board({ chosen, selected, changed, isHidden: (cell) => surest > 0 && !failed(cell) && cell[TRUST] < surest }));
  boards.forEach((board, at) => board.entitle(wanted.length > 1 ? wanted[at].prompt : wanted[at].minus !== null ? `${wanted[at].prompt} − ${wanted[at].minus}` : ""));
  $("boards").replaceChildren(...boards.map((board) => board.node));
}

// Empty grids for the prompts in the form, and their tokens. Of several calls the last one counts.
let laying = new AbortController();
async function lay() {
  typed.cancel();
  laying.abort();
  const { signal } = laying = new AbortController(), wanted = queries();
  $("second").hidden = $("view").value === "single";
  arrange(wanted);
  detail.clear();
  chosenByReader = false;
  const layers = Array.from({ length: about.n_layers + 1 }, (_, at) => about.n_layers - at);
  for (const board of boards) board.lay([], []);
  await Promise.all(wanted.map(async ({ prompt, raw, minus }, at) => {
    const { tokens } = await persisting(() => askForJson("tokenize", { prompt, raw }, signal), signal, outage, (sentence) => boards[at].say(sentence));
    if (at === 0) chips.set(tokens);
    if (minus === null) boards[at].lay(layers, tokens.map(({ index, text }) => [index, text, "prompt"]));
  }));
  laid = identityOfPrompts();
}

const identityOfPrompts = () => JSON.stringify(["prompt", "other", "raw", "view"].map((name) => $(name).value));

const report = (error) => { if (error.name !== "AbortError") boards[0].say(error.message); };

async function run() {
  try {
    if (laid !== identityOfPrompts()) await lay();
  } catch (error) {
    report(error);
    return;
  }
  typed.cancel();
  writeAddress(named);
  tellSettings();
  boards.forEach((board, at) => runBoard(board, queries()[at]));
}

async function runBoard(board, query) {
  try {
    await board.run(query, outage);
    chooseBest(board);
    await showLens(board);
  } catch (error) {
    if (error.name !== "AbortError") board.say(error.message);
  }
}

function stop() {
  for (const board of boards) board.stop();
  changed();
}

// The whole grid with the settings that were tried on a cell.
function adopt({ interpretation_prompt: prompt, question, ...settings }) {
  for (const [name, value] of Object.entries(settings)) $(name).value = String(value);
  if (prompt !== undefined) $("interpretation_prompt").value = prompt;
  if (question !== undefined) $("question").value = question ?? "";
  run();
}

// --- the chosen cell ---
function chosen(board, cell) {
  chosenByReader = true;
  show(board, cell);
}

function show(board, cell) {
  for (const other of boards) if (other !== board) other.show(null);
  detail.show(board, cell);
  named = boards.indexOf(board) === 0 ? keyOf(cell) : null;
  if (chosenByReader) writeAddress(named);
}

// Until the reader chooses: the cell that the address names, else of the last prompt token, which holds what comes next, the
// one to be trusted most.
function chooseBest(board) {
  if (chosenByReader || board !== boards[0]) return;
  const last = board.columns.findLast(([index, , source]) => source !== "output" && board.layers.some((layer) => board.cells.has(layer + "/" + index)));
  const its = [...board.cells.values()].filter((cell) => !failed(cell) && (!last || cell[TOKEN] === last[0]));
  const [best] = its.sort((a, b) => b[TRUST] - a[TRUST] || b[MEAN] - a[MEAN]);
  const cell = board.cells.get(named) ?? best;
  if (!cell) return;
  board.grid?.point(cell);
  detail.show(board, cell);
}

function selected(board, layers, columns) {
  $("layers").value = selectionText(layers.map(Number).sort((a, b) => a - b), about.n_layers + 1);
  const alone = columns.filter(([index, text, source]) => source === "prompt" || (source === "difference" && text.endsWith(`[${index}]`)));
  const there = board.columns.filter(([, , source]) => source !== "output");
  if (columns.length === board.columns.length || !alone.length) $("tokens").value = "all";
  else $("tokens").value = selectionText(alone.map(([index]) => index), there.length);
  chips.show();
  run();
}

// --- progress ---
let toldQuarter = null;
function changed() {
  const running = boards.some((board) => board.isRunning);
  const [n, of] = boards.reduce(([a, b], board) => [a + board.computed, b + board.wanted.size], [0, 0]);
  $("stop").hidden = !running;
  $("run").hidden = running;
  $("progress").hidden = !running;
  if (of) $("progress").value = n / of;
  else $("progress").removeAttribute("value");
  const cells = of.toLocaleString("en") + (of === 1 ? " cell" : " cells");
  $("count").textContent = running && !of ? "reading the prompt …" : n < of ? `${n.toLocaleString("en")} of ${cells}${running ? "" : ", stopped"}` : of ? cells : "";
  const quarter = running ? `${Math.floor(4 * n / of)}` : "end";
  if (quarter !== toldQuarter) $("status").textContent = $("count").textContent; // read aloud: not every batch
  toldQuarter = quarter;
  if (!detail.shown && n) boards.slice(0, 1).forEach(chooseBest);
}

// --- lenses ---
const MOST_LENS_CELLS = 5000; // of one request

async function showLens(board) {
  const { query, layers } = board, lens = $("lens").value, tokens = board.columns.filter(([, , source]) => source === "prompt").map(([index]) => index);
  if (!lens || query === null || !tokens.length) return;
  if (query.minus !== null) throw new Refused("A lens reads states, not differences of states.");
  board.lensName = lens;
  const rows = Math.max(1, Math.floor(MOST_LENS_CELLS / tokens.length));
  for (let from = 0; from < layers.length; from += rows) {
    const asked = { prompt: query.prompt, raw: query.raw, layers: layers.slice(from, from + rows).join(","), tokens: tokens.join(","), k: 3, lens };
    const { cells } = await persisting(() => askForJson("lens", asked), undefined, outage);
    if (board.query !== query || $("lens").value !== lens) return;
    for (const { layer, token, top } of cells) board.lens.set(layer + "/" + token, top);
    board.grid?.drawAllAnew();
  }
}

function switchLens() {
  for (const board of boards) {
    board.lens.clear();
    board.grid?.drawAllAnew();
    board.say(null);
    showLens(board).catch((error) => board.say(error.message));
  }
}

// --- controls ---
const typed = later(250, () => lay().catch(report));
const fresh = () => { named = null; };
for (const name of ["prompt", "other"]) $(name).addEventListener("input", () => { fresh(); stop(); typed(); });
for (const name of ["raw", "view"]) $(name).addEventListener("change", () => { fresh(); run(); });
for (const name of [...SETTINGS, "question"]) $(name).addEventListener("change", run);
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
for (const name of ["prompt", "other"]) {
  $(name).addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("ask").requestSubmit();
  });
}
$("stop").addEventListener("click", () => { stop(); $("run").focus(); });
$("trust").addEventListener("change", () => {
  surest = Number($("trust").value);
  for (const board of boards) board.grid?.drawAllAnew();
});
$("lens").addEventListener("change", switchLens);
$("table").addEventListener("click", () => {
  const asTable = $("table").getAttribute("aria-pressed") !== "true";
  $("table").setAttribute("aria-pressed", asTable);
  for (const board of boards) {
    board.asTable = asTable;
    board.draw();
  }
});
$("share").addEventListener("click", () => { writeAddress(named); copy(location.href, $("share")); });
$("copy").addEventListener("click", () => copy($("offer").querySelector("pre").textContent, $("copy")));
for (const choice of document.querySelectorAll("[data-format]")) {
  choice.addEventListener("click", () => {
    choice.closest("details").open = false;
    download(choice.dataset.format, boards[0].query ?? queries()[0], outage, (sentence) => boards[0].say(sentence));
  });
}
$("theme").addEventListener("click", () => {
  const root = document.documentElement, set = root.style.colorScheme;
  const dark = set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.style.colorScheme = dark ? "light" : "dark";
});
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented) return;
  if (event.key === "Enter" && event.target.closest?.(".grid td") && !event.target.matches(".absent")) detail.node.focus();
  if (event.key === "Escape" && detail.node.contains(document.activeElement)) detail.shown?.board.grid?.goTo(detail.shown.cell)?.focus();
});
document.addEventListener("click", ({ target }) => { // a menu closes when something else is clicked
  for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
});
document.addEventListener("scale", () => {
  tellScale();
  for (const board of boards) board.grid?.drawAllAnew();
});
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) for (const board of boards) board.draw();
  width = innerWidth;
});
addEventListener("hashchange", open);

function tellSettings() {
  const [query] = queries();
  $("how").textContent = `${labelOf(query)}, ${describe(query)}`;
}

function tellScale() { $("scale").textContent = (data.scale / 1000).toFixed(1); }

function open() {
  named = readAddress();
  laid = null;
  run();
}

tellScale();
open();
