"use strict";
// What a cell says. Data reaches the document through textContent and properties alone, so nothing in it is ever
// parsed as markup. The numbers are thousandths.
const LAYER = 0, TOKEN = 1, MEAN = 2, TEXTS = 3, RELEVANCY = 4, PROBABILITY = 5, TRUST = 6, // places in a cell's list
  ALIKE = 7, SAMPLES = 8; // of samples drawn at random: how many say what the cell says, of how many
const SHOWN = 64; // characters of a cell: more than the widest one has room for

const data = JSON.parse(document.getElementById("data").textContent);

const failed = (cell) => typeof cell[MEAN] === "string";
const textOf = (cell) => failed(cell) ? cell[MEAN] : typeof cell[TEXTS] === "string" ? cell[TEXTS] : cell[TEXTS].join("");
const lowerOf = (cell) => cell.lower ??= textOf(cell).toLowerCase();
const layerName = (layer) => layer === null ? "vector" : String(layer);
const stepOf = (relevancy) => Math.min(data.steps - 1, Math.round(relevancy / data.scale * (data.steps - 1)));
const decimal = (thousandths) => thousandths === null ? "–" : (thousandths / 1000).toFixed(3);
const agreement = (cell) => cell[SAMPLES] ? `${(100 * cell[ALIKE] / cell[SAMPLES]).toFixed(1)}\u00a0% of ${cell[SAMPLES]} samples` : "–";
const percent = (thousandths) => thousandths === null ? "–" : (thousandths / 10).toFixed(1) + "\u00a0%";

function mean(numbers) {
  const known = numbers.filter((number) => number !== null);
  return known.length ? known.reduce((sum, number) => sum + number, 0) / known.length : null;
}

function oneLine(text) {
  const line = text.slice(0, 4 * SHOWN).trim().replace(/\r\n|[\n\r\u2028\u2029]/g, "⏎");
  return [...line].slice(0, SHOWN).join(""); // by characters: half of a surrogate pair is none
}

// What a grid has room for: the beginning, or the part where something was found.
function cellText(cell) {
  return failed(cell) ? "⚠ " + oneLine(textOf(cell)) : oneLine(textOf(cell)) || "∅";
}

function lineAround(text, at) {
  return at < 8 ? oneLine(text) : "…" + oneLine(text.slice(at - 2));
}

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// The texts that activate a vector, the token that does so marked.
function contextsOf(cell, name) {
  return (data.contexts?.[cell[TOKEN]] ?? []).map(([before, at, after, activation]) => {
    const made = element(name, "context", before.replace(/\n/g, "⏎")), token = element("mark", "", at.replace(/\n/g, "⏎"));
    token.title = `activation ${activation}`;
    made.append(token, after.replace(/\n/g, "⏎"));
    return made;
  });
}

function wordOf(text, relevancy, probability) {
  const span = element("span", "r" + stepOf(relevancy ?? 0), text.replace(/\n/g, "⏎"));
  span.title = `relevancy ${decimal(relevancy)} · probability ${decimal(probability)}`;
  if (text === "") { // an end of sequence, or a byte of a character that a later token completes
    span.textContent = "∅";
    span.classList.add("silent");
    span.title += " · a token without text";
  }
  return span;
}
