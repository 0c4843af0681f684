// One prompt's grid that fills while its cells are computed, and the choice of cells by dragging.
class Board {
  // `chosen(board, cell)`: the reader is at a cell. `selected(layers, tokens)`: cells were dragged over. `changed(board)`: progress.
  constructor(title, { chosen, selected, changed, mark }) {
    Object.assign(this, { chosen, selected, changed, mark });
    this.layers = [];
    this.columns = [];
    this.cells = new Map(); // "layer/token" → cell
    this.waiting = new Set(); // keys of cells that are being computed
    this.lost = new Set(); // of those that were when the server went
    this.lens = new Map(); // "layer/token" → the lens's best tokens
    this.query = null;
    this.node = element("section", "board");
    this.node.setAttribute("aria-label", title);
    this.heading = element("h2", "", title);
    this.failure = element("p", "failure");
    this.failure.hidden = true;
    this.view = element("div", "view");
    this.node.append(this.heading, this.failure, this.view);
    this.asTable = false;
    this.#watchDragging();
  }

  get isRunning() { return this.abort !== undefined; }

  // An empty grid, to choose from.
  lay(layers, columns) {
    this.stop();
    Object.assign(this, { layers, columns, query: null });
    this.cells.clear();
    this.waiting.clear();
    this.lens.clear();
    this.say(null);
    this.draw();
  }

  say(problem) {
    this.failure.hidden = problem === null;
    this.failure.textContent = problem ?? "";
  }

  stop() {
    this.abort?.abort();
    this.abort = undefined;
    if (this.waiting.size) {
      this.waiting.clear();
      this.grid?.drawAllAnew();
    }
  }

  // Interpret the query's cells. Cells of another query go; those of the same, at other places, stay.
  async run(query) {
    this.stop();
    const same = this.query !== null && identity(query) === identity(this.query);
    const asked = new AbortController();
    this.abort = asked;
    this.query = query;
    this.say(null);
    this.n = 0;
    this.of = 0;
    try {
      for await (const [event, data] of stream(query.minus === null ? "interpret" : "compare", query, asked.signal)) {
        if (this.abort !== asked) return;
        if (event === "begun") this.#begin(data, same);
        else if (event === "cells") this.#add(data.cells);
        else if (event === "failed") throw new Refused(data.detail);
        this.changed(this);
      }
    } finally {
      if (this.abort === asked) {
        this.lost = new Set(this.waiting);
        this.stop();
      }
      this.changed(this);
    }
  }

  // What of the query is still missing, as a query of its own.
  missing() {
    const layers = new Set([...this.lost].map((key) => key.split("/")[0]));
    return layers.size ? { ...this.query, layers: [...layers].join(",") } : this.query;
  }

  #begin({ layers, columns, n_cells }, same) {
    const merged = mergedColumns(this.columns, columns);
    if (!same) this.cells.clear();
    const grown = merged.length !== this.columns.length || layers.some((layer) => !this.layers.includes(layer));
    this.columns = merged;
    this.layers = [...new Set([...this.layers, ...layers])].sort((a, b) => b - a);
    this.waiting = new Set(layers.flatMap((layer) => columns.map((column) => layer + "/" + column[0])));
    this.of = n_cells;
    if (grown || !this.grid) this.draw();
    else {
      if (!same) this.grid.cells.clear();
      this.grid.drawAllAnew();
    }
  }

  #add(cells) {
    const strongest = Math.max(...cells.map((cell) => failed(cell) ? 0 : cell[MEAN] ?? 0));
    const scale = Math.min(1000, Math.ceil(strongest / 100) * 100);
    for (const cell of cells) {
      const key = cell[LAYER] + "/" + cell[TOKEN];
      this.cells.set(key, cell);
      this.waiting.delete(key);
      this.grid?.add(cell);
    }
    this.n += cells.length;
    if (scale > data.scale) {
      data.scale = scale;
      document.dispatchEvent(new Event("scale"));
    }
    if (this.asTable) this.draw();
  }

  draw() {
    const example = { name: this.heading.textContent, layers: this.layers, columns: this.columns };
    this.grid = undefined;
    this.view.replaceChildren();
    if (!this.columns.length) return;
    const label = this.query ? labelOf(this.query) : "";
    if (this.asTable) {
      const { node } = plainTable(example, [...this.cells.values()].map((cell) => [label, cell]), () => {});
      this.view.append(node);
      return;
    }
    this.grid = new Grid(example, { label, cells: [...this.cells.values()] }, this.view.clientWidth, {
      mark: (td, cell) => this.#mark(td, cell),
      chosen: (cell) => this.chosen(this, cell),
      awaited: (layer, token) => this.waiting.has(layer + "/" + token),
    });
    this.view.append(this.grid.node);
    this.grid.show();
  }

  columnOf(cell) { return this.columns.find((column) => column[0] === cell[TOKEN]); }

  #mark(td, cell) {
    this.mark(td, cell);
    const best = this.lens.get(cell[LAYER] + "/" + cell[TOKEN]);
    if (best && !td.classList.contains("hidden")) {
      const word = element("bdi", "lens-word", oneLine(best[0].text) || "∅");
      word.title = `logit lens: ${best.map((one) => `${JSON.stringify(one.text)} ${percent(1000 * one.probability)}`).join(", ")}`;
      td.prepend(word);
    }
  }

  // --- dragging: a rectangle of cells, whole columns from the head, whole rows from the margin ---
  #watchDragging() {
    let from = null, to = null;
    const placeOf = (node) => {
      const td = node.closest?.(".grid td");
      if (td && this.grid?.node.contains(td)) return { y: [td.y, td.y], x: [td.x, td.x] };
      const th = node.closest?.(".grid th");
      if (!th || !this.grid?.node.contains(th)) return null;
      const y = this.grid.rows.indexOf(th.parentNode), x = [...th.parentNode.children].indexOf(th) - 1;
      if (y >= 0) return { y: [y, y], x: [0, this.columns.length - 1] };
      return x < 0 || th.parentNode.classList.contains("sources") ? null : { y: [0, this.layers.length - 1], x: [x, x] };
    };
    const show = () => {
      for (const td of this.view.querySelectorAll(".grid td")) td.classList.toggle("selected", from !== null && to !== null && inside(td, from, to));
    };
    this.view.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.pointerType === "touch") return;
      from = placeOf(event.target);
      to = null;
    });
    this.view.addEventListener("pointermove", (event) => {
      if (!from || !(event.buttons & 1)) return;
      const at = placeOf(document.elementFromPoint(event.clientX, event.clientY) ?? this.view);
      if (at && (to !== null || at.y[0] !== from.y[0] || at.x[0] !== from.x[0])) {
        to = at;
        show();
      }
    });
    const end = (event) => {
      const wholeLine = from && !to && event.target.closest?.(".grid th") ? from : null; // a click on a head or margin
      const [a, b] = [from, to ?? wholeLine];
      from = to = null;
      show();
      if (!a || !b) return;
      const ys = [...a.y, ...b.y], xs = [...a.x, ...b.x];
      this.selected(this, this.layers.slice(Math.min(...ys), Math.max(...ys) + 1), this.columns.slice(Math.min(...xs), Math.max(...xs) + 1));
    };
    this.view.addEventListener("pointerup", end);
    document.addEventListener("pointerup", () => { if (from) { from = to = null; show(); } });
  }
}

function inside(td, from, to) {
  const between = (at, [a, b], [c, d]) => at >= Math.min(a, c) && at <= Math.max(b, d);
  return between(td.y, from.y, to.y) && between(td.x, from.x, to.x);
}

function mergedColumns(old, new_) {
  const all = new Map(old.map((column) => [column[0], column]));
  for (const column of new_) all.set(column[0], column);
  return [...all.values()].sort((a, b) => a[0] - b[0]);
}

const identity = ({ layers, tokens, ...rest }) => JSON.stringify(rest);
const labelOf = (query) => query.question != null ? `question: ${query.question}` : query.interpretation_prompt;
