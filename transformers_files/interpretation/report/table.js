// The plain table: what a grid shows, for reading aloud and copying.
const ROWS = 400; // of a table that are made in one go
const TABLE = [["layer", "number"], ["token", "number"], ["current token", "short"], ["source", "short"], ["interpretation prompt", "short"],
  ["interpretation", "long"], ["mean relevancy", "wide number"], ["mean probability", "wide number"], ["trust", "fair number"], ["status", "short"]];
const AGREEMENT = ["agreement", "short"]; // where there are samples
const CONTEXTS = ["texts that activate it", "texts"]; // where they are known, after the interpretation
const SAID = TABLE.findIndex(([name]) => name === "interpretation");

// `entries` are [label of the interpretation prompt, cell], `made(row, cell)` is told of each row.
function plainTable(example, entries, made) {
  const table = element("table", data.contexts ? "plain with-texts" : "plain"), node = element("div", "scroller");
  table.append(element("caption", "", example.name));
  const head = table.createTHead().insertRow(), body = table.createTBody();
  const sampled = entries.some(([, cell]) => cell[SAMPLES]);
  const heads = sampled ? [...TABLE, AGREEMENT] : [...TABLE];
  if (data.contexts) heads.splice(SAID + 1, 0, CONTEXTS);
  for (const [name, className] of heads) {
    head.append(element("th", className, name));
    head.lastChild.scope = "col";
  }
  node.tabIndex = 0;
  node.append(table);
  const columns = new Map(example.columns.map((column) => [column[0], column]));
  const more = (from) => { // thousands of rows at once would hold up the first that are seen
    for (const [label, cell] of entries.slice(from, from + ROWS)) {
      const row = tableRow(columns.get(cell[TOKEN]), label, cell);
      if (sampled) row.append(element("td", AGREEMENT[1], agreement(cell)));
      if (data.contexts) {
        const texts = element("td", CONTEXTS[1]);
        texts.append(...contextsOf(cell, "p"));
        row.cells[SAID].after(texts);
      }
      body.append(row);
      made(row, cell);
    }
    if (from + ROWS < entries.length) setTimeout(() => node.isConnected && more(from + ROWS));
  };
  more(0);
  return { node, body };
}

function tableRow([index, text, source], label, cell) {
  const row = element("tr"), bad = failed(cell);
  const values = [layerName(cell[LAYER]), index, text, source, label, bad ? "" : textOf(cell),
    bad ? "" : decimal(cell[MEAN]), bad ? "" : decimal(mean(cell[PROBABILITY])), bad ? "" : percent(cell[TRUST]), bad ? cell[MEAN] : "ok"];
  values.forEach((value, at) => row.append(element("td", TABLE[at][1], value)));
  return row;
}
