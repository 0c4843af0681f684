// What can be tried with one cell: each trial asks the server again, and of several askings the last one counts.
class Trials {
  constructor(board, cell, { signal, outage, adopt }) {
    Object.assign(this, { board, cell, signal, outage, adopt, query: board.queryOf(cell) });
  }

  // Other strength, guidance, layer, interpretation prompt.
  insertion() {
    const { query } = this, answer = answerArea(), knobs = element("div", "knobs");
    const isAdded = query.replacing_mode.includes("addition");
    const strength = slider(knobs, "strength", { min: isAdded ? 0.1 : 0, max: isAdded ? 4 : 1, step: 0.01, value: query.overlay_strength });
    const guidance = slider(knobs, "guidance γ", { min: 0, max: 4, step: 0.01, value: query.guidance });
    const layer = field(knobs, "at layer", element("input"));
    layer.value = [query.insert_layer].flat().join(",");
    const prompt = field(knobs, "into the prompt", element("select"));
    for (const name of about.interpretation_prompts) prompt.append(element("option", "", name));
    prompt.append(new Option("one of your own …", ""));
    const own = field(knobs, "its text", element("textarea"));
    own.placeholder = "_ is a kind of";
    own.title = "Each _ is a place where the embedding goes in";
    const isNamed = typeof query.interpretation_prompt === "string";
    prompt.value = isNamed ? query.interpretation_prompt : "";
    own.value = isNamed ? "" : query.interpretation_prompt.text;
    const ownRow = [own.previousSibling, own], use = button("Use for the whole grid"), buttons = element("p", "buttons");
    const moved = new Set(); // a control that nobody touched may show a rounded number
    const settings = () => ({
      ...(moved.has(strength) && { overlay_strength: Number(strength.value) }),
      ...(moved.has(guidance) && { guidance: Number(guidance.value) }),
      ...(moved.has(layer) && { insert_layer: insertLayerOf(layer.value) }),
      ...((moved.has(prompt) || moved.has(own)) && { interpretation_prompt: prompt.value || { text: own.value }, question: null }),
    });
    const showOwn = () => { for (const part of ownRow) part.hidden = prompt.value !== ""; };
    const again = this.#asking(answer, settings, ([cell]) => [element("p", "hint", describe({ ...query, ...settings() })), wordsIn("words", cell), numbersOf(cell)]);
    knobs.addEventListener("input", ({ target }) => {
      moved.add(target);
      showOwn();
      buttons.hidden = prompt.value === "";
      if (prompt.value || own.value.includes("_")) again();
    });
    use.addEventListener("click", () => this.adopt(settings()));
    buttons.append(use);
    buttons.hidden = true;
    showOwn();
    return [knobs, answer, buttons];
  }

  question() {
    const { form, input } = oneLineForm("Ask", "What kind of thing is it?", "A question about this cell"), answer = answerArea();
    const asking = this.#asking(answer, () => ({ question: input.value.trim() }), ([cell]) => [wordsIn("words", cell), numbersOf(cell)]);
    form.addEventListener("submit", () => { if (input.value.trim()) asking(); });
    return [form, answer];
  }

  // How well a text of the reader's fits: its probability with the embedding and without it.
  meaning() {
    const { form, input } = oneLineForm("Try", "a city in France", "A text that this cell may mean"), answer = answerArea();
    if (!/^\d+$/.test(this.query.tokens)) return [element("p", "hint", "Only for tokens of the prompt.")];
    form.addEventListener("submit", () => {
      if (!input.value) return;
      const { layers, tokens, ...query } = this.query, text = /^\s/.test(input.value) ? input.value : " " + input.value;
      this.#last(answer, (signal) => askForJson("score", { ...query, layers: Number(layers), tokens: Number(tokens), text }, signal), (score) => {
        const words = element("p", "words");
        words.append(...score.tokens.map((one) => wordOf(one.text, 1000 * one.relevancy, 1000 * one.probability)));
        return [words, element("p", "hint", verdict(score.log_ratio))];
      });
    });
    return [form, answer];
  }

  // The same cell through every other built-in interpretation prompt, and drawn at random.
  alternatives() {
    const answer = answerArea(), prompts = button("Read it with the other prompts");
    prompts.addEventListener("click", () => {
      const others = about.interpretation_prompts.filter((name) => name !== this.query.interpretation_prompt);
      const each = (signal) => Promise.all(others.map((name) => this.#cells({ interpretation_prompt: name, question: null }, signal)));
      this.#last(answer, each, (found) => [listOf(found.map(([cell], at) => [others[at], cell]))]);
    });
    const samples = button("Draw five samples");
    let seed = 0;
    samples.addEventListener("click", () => {
      const drawn = { samples: 5, seed: seed++ }; // others at every click
      this.#last(answer, (signal) => this.#cells(drawn, signal), (found) => [listOf(found.map((cell, at) => [`sample ${at + 1}`, cell]))]);
    });
    const buttons = element("p", "buttons");
    buttons.append(samples, " ", prompts);
    return [buttons, answer];
  }

  // What a lens reads off the same state.
  lens(name) {
    const node = element("p", "numbers lens"), { query, board, cell } = this;
    if (query.minus !== null || board.columnOf(cell)[2] !== "prompt") return node;
    askForJson("lens", { prompt: query.prompt, raw: query.raw, layers: query.layers, tokens: query.tokens, k: 3, lens: name }, this.signal).then(({ cells }) => {
      node.append(`${name} lens:`, ...cells[0].top.map(({ text, probability }) => {
        const one = element("span");
        one.append(element("bdi", "", visibleText(text)), ` ${percent(1000 * probability)}`);
        return one;
      }));
    }, () => {}); // a line less is no reason for a message: whatever failed here fails elsewhere, too
    return node;
  }

  #asking(answer, changes, show) {
    return later(150, () => this.#last(answer, (signal) => this.#cells(changes(), signal), show));
  }

  // Shows what the work brings, unless it has been asked for again or another cell has been chosen since.
  async #last(answer, work, show) {
    answer.abort?.abort();
    const asked = answer.abort = new AbortController(), signal = AbortSignal.any([asked.signal, this.signal]);
    answer.setAttribute("aria-busy", true);
    try {
      const found = await persisting(() => work(signal), signal, this.outage);
      answer.replaceChildren(...show(found));
    } catch (error) {
      if (error.name === "AbortError") return;
      answer.replaceChildren(element("p", "problem", error.message));
    }
    answer.setAttribute("aria-busy", false);
  }

  // This cell with other settings.
  async #cells(changes, signal) {
    const found = [];
    for await (const [event, { cells }] of stream({ ...this.query, ...changes }, signal)) if (event === "cells") found.push(...cells);
    return new Set(found.map(keyOf)).size === 1 ? found : found.filter((cell) => cell[TOKEN] === this.cell[TOKEN]);
  }
}

// Interpretations under their names.
function listOf(named) {
  const list = element("dl", "alternatives");
  for (const [name, cell] of named) {
    const said = element("dd");
    said.append(...wordsOf(cell));
    said.dir = "auto";
    list.append(element("dt", "", name), said);
  }
  return list;
}

function verdict(ratio) {
  const times = Math.exp(Math.abs(ratio)), shown = times < 10 ? times.toFixed(1) : times < 1e6 ? Math.round(times).toLocaleString("en") : times.toExponential(0);
  return `${shown} times as ${ratio < 0 ? "im" : ""}probable with the embedding as without it`;
}

function answerArea() {
  const answer = element("div", "answer");
  answer.setAttribute("aria-live", "polite");
  return answer;
}

function button(text) {
  const made = element("button", "", text);
  made.type = "button";
  return made;
}

function oneLineForm(label, placeholder, name) {
  const form = element("form", "one-line"), input = element("input");
  input.placeholder = placeholder;
  input.setAttribute("aria-label", name);
  form.append(input, element("button", "", label));
  form.addEventListener("submit", (event) => event.preventDefault());
  return { form, input };
}

// A labelled control in a row of its own.
function field(parent, name, control) {
  const label = element("label", "", name);
  control.id = `trial-${name.replace(/\W+/g, "-")}`;
  label.htmlFor = control.id;
  control.classList.add("wide");
  parent.append(label, control);
  return control;
}

function slider(parent, name, { min, max, step, value }) {
  const input = field(parent, name, element("input")), shown = element("span", "value");
  Object.assign(input, { type: "range", min, max, step, value });
  input.classList.remove("wide");
  const tell = () => { shown.textContent = Number(input.value).toFixed(2); };
  input.addEventListener("input", tell);
  tell();
  parent.append(shown);
  return input;
}
