// One prompt's grid, which fills while its cells are computed.
const keyOf = (cell) => cell[LAYER] + "/" + cell[TOKEN];

class Board {
  // `chosen(board, cell)`: the reader is at a cell. `selected(board, layers, columns)`: these are wanted.
  // `changed(board)`: there is progress. `isHidden(cell)`: not trusted enough to be shown.
  constructor({ chosen, selected, changed, isHidden }) {
    Object.assign(this, { chosen, changed, isHidden, layers: [], columns: [], query: null, asTable: false, shown: null });
    this.cells = new Map(); // "layer/token" → cell
    this.wanted = new Set(); // keys of what the query asks for
    this.lens = new Map(); // "layer/token" → the lens's best tokens
    this.node = element("section", "board");
    this.heading = element("h2");
    this.problem = element("p", "problem");
    this.problem.setAttribute("role", "alert");
    this.view = element("div", "view");
    this.node.append(this.heading, this.problem, this.view);
    this.say(null);
    new Choosing(this, (layers, columns) => selected(this, layers, columns));
  }

  get isRunning() { return this.abort !== undefined; }
  get computed() { return [...this.wanted].filter((key) => this.cells.has(key)).length; }

  entitle(title) {
    this.heading.textContent = title;
    this.node.setAttribute("aria-label", title || "Grid");
  }

  // An empty grid, to choose from.
  lay(layers, columns) {
    this.stop();
    this.#forget();
    Object.assign(this, { layers, columns, query: null });
    this.say(null);
    this.draw();
  }

  say(problem) {
    this.problem.hidden = problem === null;
    this.problem.textContent = problem ?? "";
  }

  stop() {
    this.abort?.abort();
    this.abort = undefined;
    this.grid?.drawAllAnew();
  }

  // Interpret the query's cells. Cells of another query go; those of the same one, at other places, stay.
  async run(query, outage) {
    this.stop();
    if (this.query === null || identity(query) !== identity(this.query)) this.#forget();
    const asked = this.abort = new AbortController();
    this.query = query;
    this.wanted.clear();
    this.say(null);
    this.changed(this);
    try {
      await persisting(() => this.#fill(query, asked.signal), asked.signal, outage, (sentence) => this.say(sentence));
    } finally {
      if (this.abort === asked) this.stop();
      this.changed(this);
    }
  }

  async #fill(query, signal) {
    const missing = [...this.wanted].filter((key) => !this.cells.has(key));
    if (this.wanted.size && !missing.length) return;
    const layers = missing.length ? [...new Set(missing.map((key) => key.split("/")[0]))].join(",") : query.layers;
    for await (const [event, data] of stream({ ...query, layers }, signal)) {
      if (event === "begun") this.#begin(data);
      if (event === "cells") this.#add(data.cells);
      this.changed(this);
    }
  }

  #forget() {
    this.cells.clear();
    this.wanted.clear();
    this.lens.clear();
    this.shown = null;
    this.grid?.cells.clear();
    this.grid?.drawAllAnew();
  }

  #begin({ layers, columns }) {
    for (const layer of layers) for (const column of columns) this.wanted.add(layer + "/" + column[0]);
    const known = new Map([...this.columns, ...columns].map((column) => [column[0], column]));
    const isNew = known.size !== this.columns.length || layers.some((layer) => !this.layers.includes(layer));
    this.columns = [...known.values()].sort((a, b) => a[0] - b[0]);
    this.layers = [...new Set([...this.layers, ...layers])].sort((a, b) => b - a);
    if (isNew || !this.grid) this.draw();
    else this.grid.drawAllAnew();
  }

  #add(cells) {
    for (const cell of cells) {
      this.cells.set(keyOf(cell), cell);
      this.grid?.add(cell);
    }
    const strongest = Math.max(...cells.map((cell) => failed(cell) ? 0 : cell[MEAN] ?? 0));
    const scale = Math.min(1000, Math.ceil(strongest / 100) * 100); // as a report rounds it
    if (scale > data.scale) {
      data.scale = scale;
      document.dispatchEvent(new Event("scale"));
    }
    if (this.asTable) this.draw();
  }

  draw() {
    this.grid = undefined;
    this.view.replaceChildren();
    if (!this.columns.length) return;
    const example = { name: this.heading.textContent || "Interpretations", layers: this.layers, columns: this.columns };
    const label = this.query ? labelOf(this.query) : "not computed", cells = [...this.cells.values()];
    if (this.asTable) {
      cells.sort((a, b) => b[LAYER] - a[LAYER] || a[TOKEN] - b[TOKEN]);
      this.view.append(plainTable(example, cells.map((cell) => [label, cell]), () => {}).node);
      return;
    }
    this.grid = new Grid(example, { label, cells }, this.view.clientWidth, {
      mark: (td, cell) => this.#mark(td, cell),
      absent: (td, layer, token) => this.#markAbsent(td, layer + "/" + token),
      chosen: (cell) => this.chosen(this, cell),
      reaches: () => true,
    });
    this.view.append(this.grid.node);
    this.grid.show();
  }

  columnOf(cell) { return this.columns.find((column) => column[0] === cell[TOKEN]); }

  // The query of one cell, and what to look for in the answer: it may have neighbours.
  queryOf(cell) {
    const [index, text, source] = this.columnOf(cell);
    // A mean goes by its name. A difference by its index only where that is the other token's, too; generated tokens come with all.
    const alone = { prompt: String(index), mean: text, difference: text.endsWith(`[${index}]`) ? String(index) : undefined }[source];
    return { ...this.query, layers: String(cell[LAYER]), tokens: alone ?? this.query.tokens };
  }

  // The cell that the panel tells of.
  show(cell) {
    this.shown = cell;
    this.grid?.markAll();
  }

  #mark(td, cell) {
    const hidden = this.isHidden(cell);
    td.classList.toggle("hidden", hidden);
    td.classList.toggle("shown", cell === this.shown);
    td.textContent = hidden ? "·" : cellText(cell);
    if (hidden) td.setAttribute("aria-label", "hidden: little trust");
    else td.removeAttribute("aria-label");
    if (!hidden) this.#addLens(td, keyOf(cell));
  }

  #markAbsent(td, key) {
    const awaited = this.isRunning && this.wanted.has(key);
    td.className = awaited ? "absent awaited" : "absent";
    td.setAttribute("aria-label", awaited ? "being computed" : "not computed");
    this.#addLens(td, key);
  }

  #addLens(td, key) {
    const best = this.lens.get(key);
    if (!best) return;
    const word = element("bdi", "lens-word", visibleText(best[0].text));
    word.title = `${this.lensName} lens: ${best.map((one) => `${JSON.stringify(one.text)} ${percent(1000 * one.probability)}`).join(", ")}`;
    td.prepend(word);
  }
}

// A token's text so that it can be seen.
const visibleText = (text) => oneLine(text) || text.slice(0, SHOWN).replace(/\n/g, "⏎").replace(/ /g, "␣") || "∅";
