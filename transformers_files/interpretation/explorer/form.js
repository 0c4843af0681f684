// The form: in its fields, in the address, and as the query that the server is asked.
const $ = (id) => document.getElementById(id);
const { about } = data;
const NUMBERS = ["overlay_strength", "guidance", "deep_gain", "plausibility", "max_new_tokens"];
const SETTINGS = ["interpretation_prompt", "insert_layer", "replacing_mode", ...NUMBERS];
const FIRST = {
  prompt: "The capital of France is", other: "The capital of Italy is", raw: "raw", view: "single", layers: about.defaults.layers, tokens: "all", question: about.defaults.question,
  ...Object.fromEntries(SETTINGS.map((name) => [name, String(about.defaults[name])])),
};

const fields = () => Object.fromEntries(Object.keys(FIRST).map((name) => [name, $(name).value]));

// Returns the place of the chosen cell that the address names, "layer/token".
function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(FIRST)) {
    $(name).value = given.get(name) ?? value;
    if ($(name).value === "" && value !== "") $(name).value = value; // a choice that this server does not have
  }
  return given.get("cell");
}

function writeAddress(cell) {
  const set = Object.entries(fields()).filter(([name, value]) => value !== FIRST[name]);
  if (cell) set.push(["cell", cell]);
  history.replaceState(null, "", "#" + new URLSearchParams(set));
}

function insertLayerOf(text) {
  const layers = text.split(",").map((part) => part.trim()).filter(Boolean);
  if (!layers.length) return about.defaults.insert_layer;
  if (!layers.every((layer) => /^\d+$/.test(layer))) return text.trim(); // "same", or what the server refuses by name
  return layers.length === 1 ? Number(layers[0]) : layers.map(Number);
}

// One query, or of two prompts side by side two.
function queries() {
  const { prompt, other, raw, view, layers, tokens, question, ...settings } = fields();
  for (const name of NUMBERS) settings[name] = settings[name] === "" ? about.defaults[name] : Number(settings[name]);
  settings.insert_layer = insertLayerOf(settings.insert_layer);
  const query = { prompt, raw: raw === "raw", minus: view === "difference" ? other : null, layers, tokens, question: question.trim() || null, ...settings };
  return view === "beside" ? [query, { ...query, prompt: other }] : [query];
}

const identity = ({ layers, tokens, ...rest }) => JSON.stringify(rest); // of queries whose cells at a place are equal
const labelOf = ({ question, interpretation_prompt: prompt }) => question !== null ? `question: ${question}` : typeof prompt === "string" ? prompt : "a prompt of your own";

function describe({ insert_layer, replacing_mode, overlay_strength, guidance }) {
  return `inserted at layer ${insert_layer}, ${replacing_mode.replace(/_/g, " ")}, strength ${overlay_strength}, guidance γ ${guidance}`;
}

// Ascending indices in the syntax of the fields: all, 3, 2:5, 2,4,7.
function selectionText(indices, length) {
  const first = indices[0], last = indices[indices.length - 1];
  if (indices.length === length) return "all";
  if (indices.length === 1) return String(first);
  return indices.length === last - first + 1 ? `${first}:${last + 1}` : indices.join(",");
}
