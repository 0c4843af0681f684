// The chosen cell in full: its words, its numbers, and what can be tried with it.
class Detail {
  // `queryOf(board, cell)`: the query of this one cell.
  constructor(node, queryOf) {
    Object.assign(this, { node, queryOf, kept: [] });
    this.clear();
  }

  clear() {
    this.node.replaceChildren(element("p", "empty", "Click a cell, or walk the grid with the arrow keys, to read it in full."));
    this.shown = null;
  }

  show(board, cell) {
    if (this.shown?.cell === cell) return;
    this.abort?.abort();
    this.abort = new AbortController();
    this.shown = { board, cell };
    const column = board.columnOf(cell), head = element("h2");
    this.place = [cell[LAYER] === null ? "" : `layer ${cell[LAYER]}`, `token ${column[0]} ${column[1].slice(0, SHOWN)}`].filter(Boolean).join(" · ");
    head.append(element("bdi", "", this.place), element("span", "", labelOf(board.query)));
    this.node.replaceChildren(head, ...reading(cell), ...(failed(cell) ? [] : [barsOf(cell)]), this.#lens(), ...this.#tries(), this.#keptList());
    this.node.scrollTop = 0;
  }

  // Runs one cell anew; what was asked before counts no more.
  async #again(target, changes, key) {
    this.running?.[key]?.abort();
    const asked = new AbortController(), { board, cell } = this.shown;
    (this.running ??= {})[key] = asked;
    target.classList.add("waiting");
    try {
      const query = { ...this.queryOf(board, cell), ...changes }, found = [];
      for await (const [event, data] of stream(query.minus === null ? "interpret" : "compare", query, asked.signal)) {
        if (event === "cells") found.push(...data.cells);
        if (event === "failed") throw new Refused(data.detail);
      }
      target.classList.remove("waiting");
      return found;
    } catch (error) {
      if (error.name === "AbortError") return null;
      target.classList.remove("waiting");
      target.replaceChildren(error instanceof ServerGone ? "The server does not answer." : error.message);
      return null;
    }
  }

  #lens() {
    const node = element("p", "numbers", "logit lens: …"), { board, cell } = this.shown, { query } = board;
    if (query.minus !== null || cell[LAYER] === null || board.columnOf(cell)[2] !== "prompt") node.textContent = "";
    else {
      askForJson("lens", { prompt: query.prompt, raw: query.raw, layers: String(cell[LAYER]), tokens: String(cell[TOKEN]), k: 3 }, this.abort.signal)
        .then(({ cells }) => node.replaceChildren("logit lens: ", ...cells[0].top.flatMap((one) => [element("bdi", "", JSON.stringify(one.text)), ` ${percent(1000 * one.probability)}  `])))
        .catch(() => { node.textContent = ""; });
    }
    return node;
  }

  #tries() {
    const { board, cell } = this.shown, query = this.queryOf(board, cell);
    const knobs = element("div", "knobs"), result = element("p", "answer"), about = data.about;
    result.setAttribute("aria-live", "polite");
    const strongest = /addition/.test(query.replacing_mode) ? 4 : 1;
    const strength = knob(knobs, "strength", "range", { min: 0.05, max: strongest, step: 0.05, value: query.overlay_strength });
    const guidance = knob(knobs, "guidance γ", "range", { min: 0, max: 3, step: 0.1, value: query.guidance });
    const layer = knob(knobs, "inserted at layer", "number", { min: 0, max: about.n_layers - 1, step: 1, value: String(query.insert_layer) });
    const prompt = choice(knobs, "interpretation prompt", about.interpretation_prompts, query.interpretation_prompt);
    const tryIt = later(150, async () => {
      const found = await this.#again(result, {
        overlay_strength: Number(strength.value), guidance: Number(guidance.value), insert_layer: Number(layer.value), interpretation_prompt: prompt.value, question: null,
      }, "knobs");
      if (found?.length) result.replaceChildren(...wordsOf(found[0]));
    });
    knobs.addEventListener("input", tryIt);
    const form = element("form", "question"), question = element("input"), answer = element("p", "answer");
    question.placeholder = "Is it about a place?";
    question.setAttribute("aria-label", "A question about this cell");
    answer.setAttribute("aria-live", "polite");
    form.append(question, element("button", "", "Ask"));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (!question.value.trim()) return;
      const found = await this.#again(answer, { question: question.value.trim() }, "question");
      if (found?.length) answer.replaceChildren(...wordsOf(found[0]));
    });
    const keep = element("button", "", "Keep, to compare with another cell");
    keep.type = "button";
    keep.addEventListener("click", () => {
      this.kept = [...this.kept, { place: this.place, label: labelOf(board.query), prompt: board.query.prompt, cell }].slice(-4);
      this.node.querySelector(".kept-cells").replaceWith(this.#keptList());
    });
    return [element("h3", "", "Insert it differently"), knobs, result, element("h3", "", "Ask about it"), form, answer, element("h3", "", ""), keep];
  }

  #keptList() {
    const node = element("div", "kept-cells"), list = element("ul", "kept");
    if (!this.kept.length) return node;
    for (const { place, label, prompt, cell } of this.kept) {
      const item = element("li"), words = element("bdi");
      words.append(...wordsOf(cell));
      item.append(element("b", "", `${place} · ${label} · ${prompt.slice(0, SHOWN)}`), words);
      list.append(item);
    }
    const forget = element("button", "", "Forget them");
    forget.type = "button";
    forget.addEventListener("click", () => {
      this.kept = [];
      node.replaceWith(this.#keptList());
    });
    node.append(element("h3", "", "Kept"), list, forget);
    return node;
  }
}

const wordsOf = (cell) => failed(cell) ? [element("span", "failed", cell[MEAN])] : typeof cell[TEXTS] === "string" ? [element("span", "", cell[TEXTS])]
  : cell[TEXTS].map((word, at) => wordOf(word, cell[RELEVANCY][at], cell[PROBABILITY][at]));

function reading(cell) {
  const words = element("p", "words");
  words.dir = "auto";
  words.append(...wordsOf(cell));
  if (failed(cell)) return [words];
  const numbers = element("p", "numbers");
  numbers.append(element("span", "", `mean relevancy ${decimal(cell[MEAN])}`), element("span", "", `mean probability ${decimal(mean(cell[PROBABILITY]))}`), element("span", "", `trust ${percent(cell[TRUST])}`));
  return [words, numbers];
}

// Probability and relevancy of each token, as bars.
function barsOf(cell) {
  const table = element("table", "bars"), head = table.createTHead().insertRow(), body = table.createTBody();
  for (const name of ["token", "probability", "relevancy"]) {
    head.append(element("th", "", name));
    head.lastChild.scope = "col";
  }
  cell[RELEVANCY].forEach((relevancy, at) => {
    const row = body.insertRow(), text = typeof cell[TEXTS] === "string" ? "" : cell[TEXTS][at];
    row.append(element("td", "", text.replace(/\n/g, "⏎") || "∅"), barCell(cell[PROBABILITY][at]), barCell(relevancy));
  });
  return table;
}

function barCell(thousandths) {
  const cell = element("td"), bar = element("meter");
  bar.max = 1000;
  bar.value = thousandths ?? 0;
  bar.setAttribute("aria-hidden", "true");
  cell.append(bar, decimal(thousandths));
  return cell;
}

function knob(parent, name, type, attributes) {
  const label = element("label", "", name), input = element("input"), shown = element("output");
  input.type = type;
  for (const [key, value] of Object.entries(attributes)) input[key] = value;
  input.id = `knob-${name.replace(/\W/g, "-")}`;
  label.htmlFor = shown.htmlFor = input.id;
  const tell = () => { shown.textContent = type === "range" ? Number(input.value).toFixed(2) : ""; };
  input.addEventListener("input", tell);
  tell();
  parent.append(label, input, shown);
  return input;
}

function choice(parent, name, values, value) {
  const label = element("label", "", name), select = element("select", "wide");
  select.id = `knob-${name.replace(/\W/g, "-")}`;
  label.htmlFor = select.id;
  for (const one of values) select.append(element("option", "", one));
  select.value = value;
  parent.append(label, select);
  return select;
}

// The last of several calls, once nothing has been called for so many milliseconds.
function later(milliseconds, work) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
}
