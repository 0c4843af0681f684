// The choice of cells: by dragging over the grid (with a finger after a long press, since a quick one scrolls), whole
// tokens from its head, whole layers from its margin; with the keyboard by Shift and the arrow keys, then Enter.
const LONG_PRESS = 400; // milliseconds
const STILL = 8; // pixels that a resting finger may move

class Choosing {
  // `done(layers, columns)` is told what was chosen.
  constructor(board, done) {
    Object.assign(this, { board, done, from: null, to: null, press: null });
    const { view } = board;
    view.addEventListener("pointerdown", (event) => this.#begin(event));
    view.addEventListener("pointermove", (event) => this.#extend(event));
    addEventListener("pointerup", () => this.#end());
    addEventListener("pointercancel", () => this.#cancel());
    view.addEventListener("touchmove", (event) => { if (this.isDragging && event.cancelable) event.preventDefault(); }, { passive: false });
    view.addEventListener("contextmenu", (event) => { if (this.isDragging) event.preventDefault(); });
    view.addEventListener("click", ({ target }) => this.#click(target));
    view.addEventListener("keydown", () => { this.before = board.grid?.cursor; }, true);
    view.addEventListener("keydown", (event) => this.#key(event));
  }

  // Rows and columns, first and last, that a node stands for; null: none.
  #placeOf(node) {
    const { grid, layers, columns } = this.board, part = node?.closest?.(".grid td, .grid th");
    if (!part || !grid?.node.contains(part) || part.closest(".sources")) return null;
    if (part.tagName === "TD") return { y: [part.y, part.y], x: [part.x, part.x] };
    const y = grid.rows.indexOf(part.parentNode), x = [...part.parentNode.children].indexOf(part) - 1;
    if (y >= 0) return { y: [y, y], x: [0, columns.length - 1] };
    return x < 0 ? null : { y: [0, layers.length - 1], x: [x, x] };
  }

  #begin(event) {
    if (event.button !== 0) return;
    this.#cancel();
    if (event.pointerType !== "touch") return this.#start(event.target);
    const { target, clientX, clientY } = event;
    this.press = { clientX, clientY, timer: setTimeout(() => this.#hold(target), LONG_PRESS) };
  }

  #start(target) {
    this.from = this.#placeOf(target);
    this.isDragging = this.from !== null;
  }

  #hold(target) {
    this.press = null;
    this.#start(target);
    this.to = this.from;
    this.#show();
  }

  #extend(event) {
    const { press } = this;
    if (press && Math.hypot(event.clientX - press.clientX, event.clientY - press.clientY) > STILL) this.#cancel();
    if (!this.isDragging) return;
    const at = this.#placeOf(document.elementFromPoint(event.clientX, event.clientY));
    if (!at || (this.to === null && at.y[0] === this.from.y[0] && at.x[0] === this.from.x[0])) return;
    this.to = at;
    this.#show();
  }

  #cancel() {
    clearTimeout(this.press?.timer);
    this.press = null;
    this.isDragging = false;
    this.#clear();
  }

  #end() {
    clearTimeout(this.press?.timer);
    this.press = null;
    if (!this.isDragging) return;
    this.isDragging = false;
    if (this.to) this.#choose();
    else this.#clear();
  }

  // A head or margin is a whole column or row; a cell that is not there yet is wanted.
  #click(target) {
    const place = this.#placeOf(target);
    if (!place || (target.closest("td") && !target.closest(".absent:not(.awaited)"))) return;
    this.from = this.to = place;
    this.#choose();
  }

  #key(event) {
    const { grid } = this.board, at = grid?.cursor;
    if (!at) return;
    if (event.key === "Escape") this.#clear();
    else if (event.key === "Enter" && (this.to || !grid.at(at.y, at.x))) {
      this.from ??= this.#square(at);
      this.to ??= this.from;
      event.stopPropagation();
      this.#choose();
    } else if (at !== this.before) {
      if (!event.shiftKey) this.#clear();
      else {
        this.from ??= this.#square(this.before);
        this.to = this.#square(at);
        this.#show();
      }
    }
  }

  #square({ y, x }) { return { y: [y, y], x: [x, x] }; }

  #choose() {
    const { layers, columns } = this.board, [top, bottom, left, right] = this.#bounds();
    this.#clear();
    this.done(layers.slice(top, bottom + 1), columns.slice(left, right + 1));
  }

  #clear() {
    this.from = this.to = null;
    this.#show();
  }

  #bounds() {
    const ys = [...this.from.y, ...this.to.y], xs = [...this.from.x, ...this.to.x];
    return [Math.min(...ys), Math.max(...ys), Math.min(...xs), Math.max(...xs)];
  }

  #show() {
    const [top, bottom, left, right] = this.from && this.to ? this.#bounds() : [0, -1, 0, -1];
    for (const td of this.board.view.querySelectorAll(".grid td")) {
      const selected = td.y >= top && td.y <= bottom && td.x >= left && td.x <= right;
      td.classList.toggle("selected", selected);
      if (selected) td.setAttribute("aria-selected", true);
      else td.removeAttribute("aria-selected");
    }
  }
}
