// One grid: tokens across, layers down. Of a wide one only the columns in view, and a few beside them, are in the document:
// ten thousand cells cost as much as the few hundred that can be seen. The cursor is the cell that the keyboard is on.
const SPARE = 3; // columns drawn beyond each edge of what is in view

// The rows are styled as boxes, so the roles are written out: browsers forget those of a table whose display is changed.
function part(name, role, className, text) {
  const made = element(name, className, text);
  made.setAttribute("role", role);
  return made;
}

function markAbsent(td) {
  td.className = "absent";
  td.setAttribute("aria-label", "not computed");
}

class Grid {
  // `mark(shown, cell)` gives a drawn cell its state, `absent(shown, layer, token)` the place of one that is not there;
  // `chosen(cell)` is told when the cursor comes to a cell, `reaches(cell)` says where it may go: undefined is no cell.
  constructor(example, reading, room, { mark, chosen, absent = markAbsent, reaches = (cell) => cell !== undefined }) {
    Object.assign(this, { example, mark, chosen, absent, reaches, from: 0, to: 0, cursor: null });
    this.cells = new Map(reading.cells.map((cell) => [cell[LAYER] + "/" + cell[TOKEN], cell]));
    this.cellOf = new WeakMap(); // td → cell
    this.node = element("div", "scroller");
    this.node.tabIndex = -1;
    this.node.append(this.#table(reading, room));
    this.node.addEventListener("scroll", () => this.#drawColumns(), { passive: true });
    this.node.addEventListener("keydown", (event) => this.#key(event));
    this.node.addEventListener("focusin", ({ target }) => this.#focused(target));
  }

  // To be called when the node is in the document.
  show() {
    this.#drawColumns();
    const reached = (y, x) => this.reaches(this.at(y, x));
    const first = this.example.columns.findIndex((_, x) => this.example.layers.some((_, y) => reached(y, x)));
    if (this.cursor === null && first >= 0) this.#put(this.example.layers.findIndex((_, y) => reached(y, first)), first);
  }

  at(y, x) {
    const layer = this.example.layers[y], column = this.example.columns[x];
    return layer === undefined || column === undefined ? undefined : this.cells.get(layer + "/" + column[0]);
  }

  markAll() {
    for (const row of this.rows) for (const td of [...row.cells].slice(1)) this.#mark(td);
  }

  // A cell that has been computed since.
  add(cell) {
    this.cells.set(cell[LAYER] + "/" + cell[TOKEN], cell);
    const [y, x] = this.#placeOf(cell);
    if (this.cursor === null) this.#put(y, x);
    this.#drawAnew(y, x);
  }

  // All that are in view, after their colours or what is awaited have changed.
  drawAllAnew() {
    for (let y = 0; y < this.rows.length; y++) for (let x = this.from; x < this.to; x++) this.#drawAnew(y, x);
  }

  // Brings a cell into view and the cursor to it.
  goTo(cell) {
    this.#move(...this.#placeOf(cell));
    this.chosen(cell);
    return this.#td(this.cursor.y, this.cursor.x);
  }

  // The cursor is at a cell from now on; neither the view nor the focus moves.
  point(cell) {
    this.#put(...this.#placeOf(cell));
  }

  #placeOf(cell) {
    return [this.example.layers.indexOf(cell[LAYER]), this.example.columns.findIndex((column) => column[0] === cell[TOKEN])];
  }

  #table(reading, room) {
    const { name, layers, columns } = this.example, style = getComputedStyle(document.documentElement);
    const margin = parseFloat(style.getPropertyValue("--margin")), narrowest = parseFloat(style.getPropertyValue("--column"));
    this.width = Math.max(narrowest, Math.min(340, Math.floor((room - margin - 2) / columns.length)));
    const table = part("table", "grid", "grid"), body = part("tbody", "rowgroup");
    table.setAttribute("aria-label", `${name}, ${reading.label}: layers down, tokens across`);
    table.setAttribute("aria-rowcount", layers.length + 2);
    table.setAttribute("aria-colcount", columns.length + 1);
    table.style.setProperty("--width", this.width + "px");
    table.style.width = margin + this.width * columns.length + "px";
    this.rows = layers.map((layer) => {
      const row = part("tr", "row");
      row.append(part("th", "rowheader", "", layerName(layer)));
      return row;
    });
    body.append(...this.rows);
    table.append(this.#head(), body);
    return table;
  }

  #head() {
    const head = part("thead", "rowgroup"), sources = part("tr", "row", "sources"), tokens = part("tr", "row");
    const said = { prompt: "prompt tokens", output: "generated", mean: "means", difference: "differences", vector: "vectors" };
    sources.append(part("th", "columnheader", "corner", ""));
    tokens.append(part("th", "columnheader", "corner", "layer"));
    let group = null, span = 0;
    for (const [index, text, source] of this.example.columns) {
      if (group?.className !== source) {
        group = part("th", "columnheader", source);
        group.append(element("span", "", said[source] ?? source));
        sources.append(group);
        span = 0;
      }
      group.style.setProperty("--span", ++span);
      group.setAttribute("aria-colspan", span);
      const token = part("th", "columnheader", source);
      token.title = `token ${index}: ${text.slice(0, 200)}`;
      token.append(element("span", "index", index), element("bdi", "", text.slice(0, SHOWN)));
      tokens.append(token);
    }
    head.append(sources, tokens);
    return head;
  }

  #drawColumns() {
    const { scrollLeft, clientWidth } = this.node, all = this.example.columns.length;
    const from = Math.max(0, Math.min(all, Math.floor(scrollLeft / this.width) - SPARE));
    const to = Math.min(all, Math.ceil((scrollLeft + clientWidth) / this.width) + SPARE);
    if (from === this.from && to === this.to) return;
    const hadFocus = this.node.contains(document.activeElement);
    const kept = { from: Math.max(from, this.from), to: Math.min(to, this.to) };
    if (kept.from >= kept.to) kept.from = kept.to = from;
    this.rows.forEach((row, y) => {
      for (const td of [...row.cells].slice(1)) if (td.x < kept.from || td.x >= kept.to) td.remove();
      const before = [], after = [];
      for (let x = from; x < kept.from; x++) before.push(this.#cell(y, x));
      for (let x = kept.to; x < to; x++) after.push(this.#cell(y, x));
      row.firstChild.after(...before);
      row.append(...after);
    });
    Object.assign(this, { from, to });
    if (this.cursor) this.#showCursor(hadFocus);
  }

  #cell(y, x) {
    const cell = this.at(y, x), td = part("td", "gridcell");
    Object.assign(td, { y, x });
    td.style.left = `calc(var(--margin) + ${x * this.width}px)`;
    td.setAttribute("aria-colindex", x + 2);
    if (this.reaches(cell)) td.tabIndex = -1;
    if (cell) {
      td.className = failed(cell) ? "failed" : "r" + stepOf(cell[MEAN] ?? 0);
      td.textContent = cellText(cell);
      this.cellOf.set(td, cell);
      this.#mark(td);
    } else {
      this.absent(td, this.example.layers[y], this.example.columns[x][0]);
    }
    return td;
  }

  #drawAnew(y, x) {
    const old = this.#td(y, x);
    if (!old) return;
    const hadFocus = old === document.activeElement, made = this.#cell(y, x);
    old.replaceWith(made);
    if (this.cursor?.y === y && this.cursor.x === x) this.#showCursor(hadFocus);
  }

  #mark(td) {
    if (this.cellOf.has(td)) this.mark(td, this.cellOf.get(td));
  }

  #td(y, x) {
    return x >= this.from && x < this.to ? this.rows[y].cells[1 + x - this.from] : undefined;
  }

  #put(y, x) {
    const before = this.cursor && this.#td(this.cursor.y, this.cursor.x);
    if (before) before.tabIndex = -1;
    this.cursor = { y, x };
    this.#showCursor(false);
  }

  // Where the cursor's column is not drawn, the grid itself holds its place in the order of the Tab key.
  #showCursor(focus) {
    const td = this.#td(this.cursor.y, this.cursor.x);
    this.node.tabIndex = td ? -1 : 0;
    if (td) td.tabIndex = 0;
    if (focus) (td ?? this.node).focus({ preventScroll: true });
  }

  #focused(target) {
    if (target.x === undefined) return; // the grid itself
    this.#put(target.y, target.x);
    const cell = this.cellOf.get(target);
    if (cell) this.chosen(cell);
  }

  #key(event) {
    if (!this.cursor || event.altKey || event.metaKey) return;
    const { y, x } = this.cursor, bottom = this.rows.length - 1, right = this.example.columns.length - 1;
    const to = {
      ArrowLeft: [y, x - 1, 0, -1], ArrowRight: [y, x + 1, 0, 1], ArrowUp: [y - 1, x, -1, 0], ArrowDown: [y + 1, x, 1, 0],
      PageUp: [Math.max(0, y - 10), x, 1, 0], PageDown: [Math.min(bottom, y + 10), x, -1, 0],
      Home: [event.ctrlKey ? 0 : y, 0, 0, 1], End: [event.ctrlKey ? bottom : y, right, 0, -1],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    let [toY, toX, dy, dx] = to;
    // Places that it does not reach are stepped over.
    while (toY >= 0 && toY <= bottom && toX >= 0 && toX <= right && !this.reaches(this.at(toY, toX))) [toY, toX] = [toY + dy, toX + dx];
    if (toY < 0 || toY > bottom || toX < 0 || toX > right) return;
    this.#move(toY, toX);
    this.#td(toY, toX).focus({ preventScroll: true });
  }

  #move(y, x) {
    const { node } = this, head = node.querySelector("thead").offsetHeight, margin = this.rows[0].firstChild.offsetWidth;
    const left = x * this.width, top = this.rows[y].offsetTop - head, { offsetHeight: height } = this.rows[y];
    const within = (at, size, seen, now) => at < now ? at : at + size > now + seen ? at + size - seen : now;
    node.scrollTo({
      left: within(left, this.width, node.clientWidth - margin, node.scrollLeft),
      top: within(top, height, node.clientHeight - head, node.scrollTop),
      behavior: "instant",
    });
    this.#drawColumns();
    this.#put(y, x);
    this.#td(y, x).scrollIntoView({ block: "nearest", inline: "nearest", behavior: "instant" });
  }
}
