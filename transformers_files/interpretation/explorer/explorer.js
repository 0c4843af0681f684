// The form, its boards, and the address that says what is shown.
const $ = (id) => document.getElementById(id);
const { about } = data;
const SETTINGS = ["interpretation_prompt", "insert_layer", "replacing_mode", "overlay_strength", "guidance", "max_new_tokens"];
const NUMBERS = ["overlay_strength", "guidance", "max_new_tokens"];
const FIRST = { prompt: "The capital of France is", other: "The capital of Italy is", raw: "raw", view: "single", layers: "all", tokens: "all" };
const MOST_CHIPS = 300;
const MANY_CELLS = 5000;

let surest = 0, lensShown = false, isAway = false;
const detail = new Detail($("detail"), cellQuery);
const boards = [];

// --- state: the form's fields, in the address as far as they differ from the defaults ---
const fieldsOf = () => Object.fromEntries([...Object.keys(FIRST).filter((name) => name !== "prompt"), "prompt", ...SETTINGS].map((name) => [name, $(name).value]));
const defaults = () => ({ ...FIRST, ...Object.fromEntries(SETTINGS.map((name) => [name, String(about.defaults[name])])) });

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(defaults())) $(name).value = given.get(name) ?? value;
}

function writeAddress() {
  const standard = defaults(), set = Object.entries(fieldsOf()).filter(([name, value]) => value !== standard[name]);
  history.replaceState(null, "", "#" + new URLSearchParams(set));
}

function queryOf(prompt) {
  const fields = fieldsOf(), query = { prompt, raw: fields.raw === "raw", minus: null, layers: fields.layers, tokens: fields.tokens, deep_gain: about.defaults.deep_gain, plausibility: about.defaults.plausibility };
  for (const name of SETTINGS) query[name] = NUMBERS.includes(name) ? Number(fields[name]) : fields[name];
  if (/^\d+$/.test(query.insert_layer)) query.insert_layer = Number(query.insert_layer);
  else if (query.insert_layer.includes(",")) query.insert_layer = query.insert_layer.split(",").map(Number);
  return query;
}

function cellQuery(board, cell) {
  const source = board.columnOf(cell)[2];
  // A mean is named by the text that asks for it; a generated token only comes with all.
  const tokens = source === "mean" ? board.columnOf(cell)[1] : source === "output" ? "all" : String(cell[TOKEN]);
  return { ...board.query, layers: String(cell[LAYER]), tokens };
}

// --- boards ---
function arrange() {
  const view = $("view").value, titles = view === "beside" ? [$("prompt").value, $("other").value] : [view === "difference" ? `${$("prompt").value} − ${$("other").value}` : $("prompt").value];
  $("second").hidden = view === "single";
  while (boards.length > titles.length) boards.pop().stop();
  while (boards.length < titles.length) boards.push(new Board("", { chosen: (board, cell) => detail.show(board, cell), selected, changed: tellProgress, mark: markCell }));
  boards.forEach((board, at) => { board.heading.textContent = titles[at]; board.node.setAttribute("aria-label", titles[at]); });
  $("boards").replaceChildren(...boards.map((board) => board.node));
}

async function lay() {
  arrange();
  const prompts = $("view").value === "beside" ? [$("prompt").value, $("other").value] : [$("prompt").value];
  const layers = Array.from({ length: about.n_layers + 1 }, (_, at) => about.n_layers - at);
  await Promise.all(prompts.map(async (prompt, at) => {
    const { tokens } = await askForJson("tokenize", { prompt, raw: $("raw").value === "raw" });
    if (at === 0) showChips(tokens);
    if ($("view").value === "difference") boards[at].lay([], []);
    else boards[at].lay(layers, tokens.map(({ index, text }) => [index, text, "prompt"]));
  }));
  detail.clear();
}

async function run() {
  writeAddress();
  how();
  const view = $("view").value, prompts = view === "beside" ? [$("prompt").value, $("other").value] : [$("prompt").value];
  await Promise.all(prompts.map((prompt, at) => runBoard(boards[at], { ...queryOf(prompt), minus: view === "difference" ? $("other").value : null })));
}

async function runBoard(board, query) {
  try {
    await board.run(query);
    if (lensShown) await showLens(board);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error instanceof ServerGone) {
      await away();
      await runBoard(board, board.missing());
      return;
    }
    board.say(error.message);
  }
}

async function away() {
  $("banner").textContent = "The server does not answer. Start it again with the same command: this page waits for it and goes on.";
  $("banner").hidden = false;
  isAway = true;
  await serverIsBack();
  isAway = false;
  $("banner").hidden = true;
}

function selected(board, layers, columns) {
  $("layers").value = span(layers, about.n_layers + 1);
  const indices = columns.filter((column) => column[2] === "prompt").map((column) => column[0]);
  $("tokens").value = indices.length ? span(indices, board.columns.length) : "all";
  pressChips();
  run();
}

// Neighbouring indices as a slice.
function span(indices, length) {
  const first = Math.min(...indices), last = Math.max(...indices);
  return indices.length === length ? "all" : indices.length === 1 ? String(first) : `${first}:${last + 1}`;
}

function tellProgress() {
  const running = boards.filter((board) => board.isRunning);
  $("stop").disabled = running.length === 0;
  const [n, of] = boards.reduce(([a, b], board) => [a + (board.n ?? 0), b + (board.of ?? 0)], [0, 0]);
  $("progress").textContent = running.length === 0 ? `${n.toLocaleString("en")} cells` : of ? `${n.toLocaleString("en")} of ${of.toLocaleString("en")} cells` : "reading the prompt …";
}

function markCell(td, cell) {
  const hidden = surest > 0 && !failed(cell) && cell[TRUST] < surest;
  td.classList.toggle("hidden", hidden);
  td.textContent = hidden ? "·" : cellText(cell);
  if (hidden) td.setAttribute("aria-label", "hidden");
  else td.removeAttribute("aria-label");
}

async function showLens(board) {
  const { query } = board;
  if (query === null || query.minus !== null) return;
  const tokens = board.columns.filter((column) => column[2] === "prompt").map((column) => column[0]);
  const { cells } = await askForJson("lens", { prompt: query.prompt, raw: query.raw, layers: board.layers.join(","), tokens: tokens.join(","), k: 3 });
  for (const { layer, token, top } of cells) board.lens.set(layer + "/" + token, top);
  board.grid?.drawAllAnew();
}

// --- tokens as chips: pressed ones are interpreted; none pressed: all ---
function showChips(tokens) {
  const chips = tokens.slice(0, MOST_CHIPS).map(({ index, id, text }) => {
    const chip = element("button", "", text.slice(0, SHOWN));
    chip.type = "button";
    chip.title = `token ${index}, id ${id}`;
    chip.value = index;
    return chip;
  });
  const more = tokens.length > MOST_CHIPS ? `… and ${tokens.length - MOST_CHIPS} more ` : "";
  $("chips").replaceChildren(...chips, element("span", "", `${more}${tokens.length} ${tokens.length === 1 ? "token" : "tokens"}`));
  pressChips();
}

function pressChips() {
  const listed = $("tokens").value.split(",").map((part) => part.trim());
  for (const chip of $("chips").querySelectorAll("button")) chip.setAttribute("aria-pressed", listed.some((part) => {
    const slice = /^(\d+):(\d+)$/.exec(part);
    return part === chip.value || (slice && Number(chip.value) >= Number(slice[1]) && Number(chip.value) < Number(slice[2]));
  }));
}

function how() {
  const { interpretation_prompt, insert_layer, replacing_mode, overlay_strength, guidance } = fieldsOf();
  $("how").textContent = `${interpretation_prompt}, inserted at layer ${insert_layer}, ${replacing_mode.replace(/_/g, " ")}, strength ${overlay_strength}, guidance ${guidance}`;
}

// --- files ---
async function download(format) {
  const [board] = boards, query = board.query ?? queryOf($("prompt").value);
  try {
    const response = await ask("table", { ...query, layers: $("layers").value, tokens: $("tokens").value, format });
    if (format === "python") {
      $("code").querySelector("pre").textContent = await response.text();
      $("code").showModal();
      return;
    }
    const link = element("a");
    link.href = URL.createObjectURL(await response.blob());
    link.download = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? "interpretations";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  } catch (error) {
    board.say(error instanceof ServerGone ? "The server does not answer." : error.message);
  }
}

async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed here";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
}

// --- controls ---
const anew = () => lay().catch(async (error) => {
  if (error instanceof ServerGone) {
    await away();
    return anew();
  }
  boards[0].say(error.message);
});
const typed = later(250, anew);
for (const name of ["prompt", "other"]) $(name).addEventListener("input", typed);
for (const name of ["raw", "view"]) $(name).addEventListener("change", () => anew().then(run));
for (const name of ["interpretation_prompt", "replacing_mode"]) $(name).addEventListener("change", run);
for (const name of ["insert_layer", "overlay_strength", "guidance", "max_new_tokens"]) $(name).addEventListener("change", run);
$("tokens").addEventListener("input", pressChips);
$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (boards[0].query?.prompt !== $("prompt").value) await anew();
  run();
});
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
});
$("stop").addEventListener("click", () => { for (const board of boards) board.stop(); tellProgress(); });
$("chips").addEventListener("click", ({ target }) => {
  if (target.tagName !== "BUTTON") return;
  target.setAttribute("aria-pressed", target.getAttribute("aria-pressed") !== "true");
  const pressed = [...$("chips").querySelectorAll('[aria-pressed="true"]')].map((chip) => chip.value);
  $("tokens").value = pressed.length ? pressed.join(",") : "all";
});
$("trust").addEventListener("change", () => {
  surest = Number($("trust").value);
  for (const board of boards) board.grid?.drawAllAnew();
});
$("lens").addEventListener("click", async () => {
  lensShown = !lensShown;
  $("lens").setAttribute("aria-pressed", lensShown);
  for (const board of boards) {
    if (!lensShown) board.lens.clear();
    else await showLens(board).catch((error) => board.say(error.message));
    board.grid?.drawAllAnew();
  }
});
$("table").addEventListener("click", () => {
  const asTable = $("table").getAttribute("aria-pressed") !== "true";
  $("table").setAttribute("aria-pressed", asTable);
  for (const board of boards) { board.asTable = asTable; board.draw(); }
});
$("share").addEventListener("click", () => { writeAddress(); copy(location.href, $("share")); });
$("copy").addEventListener("click", () => copy($("code").querySelector("pre").textContent, $("copy")));
for (const button of document.querySelectorAll("[data-format]")) button.addEventListener("click", () => download(button.dataset.format));
$("theme").addEventListener("click", () => {
  const root = document.documentElement, set = root.style.colorScheme;
  const dark = set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.style.colorScheme = dark ? "light" : "dark";
});
const tellScale = () => { $("scale").textContent = (data.scale / 1000).toFixed(1); };
document.addEventListener("scale", () => { tellScale(); for (const board of boards) board.grid?.drawAllAnew(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.closest?.(".grid td")) $("detail").focus();
  if (event.key === "Escape" && $("detail").contains(document.activeElement)) boards[0].grid?.node.querySelector('td[tabindex="0"]')?.focus();
});
let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth !== width) for (const board of boards) board.draw();
  width = innerWidth;
});
addEventListener("hashchange", () => { readAddress(); anew().then(run); });

readAddress();
tellScale();
how();
anew().then(run);
