// The prompt's tokens as buttons: pressed ones are interpreted alone; with none pressed, all are.
const MOST_CHIPS = 200;

class Chips {
  // `field` holds the selection as text.
  constructor(node, field) {
    Object.assign(this, { node, field });
    node.addEventListener("click", ({ target }) => {
      const chip = target.closest("button");
      if (chip) this.#press(chip);
    });
    field.addEventListener("input", () => this.show());
  }

  set(tokens) {
    const chips = tokens.slice(0, MOST_CHIPS).map(({ index, id, text }) => {
      const chip = element("button");
      chip.append(element("bdi", "", text.slice(0, SHOWN)));
      chip.type = "button";
      chip.title = `token ${index}, id ${id}`;
      chip.value = index;
      return chip;
    });
    const more = tokens.length > MOST_CHIPS ? `… and ${tokens.length - MOST_CHIPS} more: ` : "";
    this.node.replaceChildren(...chips, element("span", "count", `${more}${tokens.length.toLocaleString("en")} ${tokens.length === 1 ? "token" : "tokens"}`));
    this.show();
  }

  show() {
    const parts = this.field.value.split(",").map((part) => part.trim());
    const has = (index) => parts.some((part) => {
      const slice = /^(\d+):(\d+)$/.exec(part);
      return slice ? index >= Number(slice[1]) && index < Number(slice[2]) : part === String(index);
    });
    for (const chip of this.#buttons()) chip.setAttribute("aria-pressed", has(Number(chip.value)));
  }

  #press(chip) {
    chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") !== "true");
    const pressed = this.#buttons().filter((one) => one.getAttribute("aria-pressed") === "true").map((one) => Number(one.value));
    this.field.value = pressed.length ? selectionText(pressed, Infinity) : "all";
  }

  #buttons() { return [...this.node.querySelectorAll("button")]; }
}
