// The panel: the chosen cell in full, another one beside it, and what can be tried with it.
class Detail {
  // `adopt(settings)`: the whole grid is wanted with these.
  constructor(node, outage, adopt) {
    Object.assign(this, { node, outage, adopt, pinned: null });
    this.open = new Map([["How it is inserted", true], ["Word by word", true]]); // by the title of a section
    this.clear();
  }

  clear() {
    this.abort?.abort();
    this.shown = null;
    this.node.replaceChildren(element("p", "empty", "Click a cell, or walk the grid with the arrow keys, to read it in full."));
  }

  show(board, cell) {
    if (this.shown?.cell === cell) return;
    this.abort?.abort();
    this.abort = new AbortController();
    this.shown = { board, cell };
    board.show(cell);
    const trials = new Trials(board, cell, { signal: this.abort.signal, outage: this.outage, adopt: this.adopt });
    const sections = failed(cell) ? [] : [
      this.#section("Word by word", barsOf(cell)),
      this.#section("How it is inserted", ...trials.insertion()),
      this.#section("Ask about it", ...trials.question()),
      this.#section("Does it mean …?", ...trials.meaning()),
      this.#section("Alternatives", ...trials.alternatives()),
    ];
    const lenses = about.lenses.map((name) => trials.lens(name));
    this.node.replaceChildren(this.#pinnedCard() ?? "", this.#card(titleOf(board, cell), cell), ...lenses, this.#pinButton(), ...sections);
    this.node.scrollTop = 0;
  }

  #card(title, cell, ...more) {
    const card = element("div", "card"), heading = element("h2");
    heading.append(element("bdi", "", title));
    card.append(heading, wordsIn("words", cell), numbersOf(cell), ...more);
    return card;
  }

  // The cell that was kept to be compared.
  #pinnedCard() {
    if (!this.pinned || this.pinned.cell === this.shown.cell) return null;
    const { title, prompt, cell } = this.pinned, isElsewhere = prompt !== this.shown.board.query.prompt;
    const card = this.#card(isElsewhere ? `${title} · ${prompt.slice(0, SHOWN)}` : title, cell);
    card.classList.add("pinned");
    card.prepend(element("p", "tag", "compared with"));
    return card;
  }

  #pinButton() {
    const { board, cell } = this.shown, isPinned = this.pinned?.cell === cell, button = element("button", "pin");
    button.type = "button";
    button.textContent = isPinned ? "Now choose another cell" : this.pinned ? "Stop comparing" : "Compare with another cell";
    button.setAttribute("aria-pressed", this.pinned !== null);
    button.addEventListener("click", () => {
      this.pinned = this.pinned ? null : { title: titleOf(board, cell), prompt: board.query.prompt, cell };
      this.shown = null;
      this.show(board, cell);
      this.node.querySelector(".pin").focus();
    });
    return button;
  }

  #section(title, ...content) {
    const section = element("details", "section");
    section.open = this.open.get(title) ?? false;
    section.addEventListener("toggle", () => this.open.set(title, section.open));
    section.append(element("summary", "", title), ...content);
    return section;
  }
}

function titleOf(board, cell) {
  const [index, text, source] = board.columnOf(cell), what = { prompt: "token", output: "token" }[source] ?? source;
  return `layer ${cell[LAYER]} · ${what} ${index} ${text.slice(0, SHOWN)}`;
}
