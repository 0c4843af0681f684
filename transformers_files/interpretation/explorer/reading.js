// One cell in full: its words shaded by relevancy, and its numbers.
const wordsOf = (cell) => failed(cell) ? [element("span", "failed", cell[MEAN])] : typeof cell[TEXTS] === "string" ? [element("span", "", cell[TEXTS])]
  : cell[TEXTS].map((word, at) => wordOf(word, cell[RELEVANCY][at], cell[PROBABILITY][at]));

function wordsIn(className, cell) {
  const words = element("p", className);
  words.dir = "auto";
  words.append(...wordsOf(cell));
  return words;
}

function numbersOf(cell) {
  const numbers = element("p", "numbers");
  if (failed(cell)) return numbers;
  const told = [
    [`relevancy ${decimal(cell[MEAN])}`, "mean over the words: how much their probability depends on the embedding"],
    [`probability ${decimal(mean(cell[PROBABILITY]))}`, "mean over the words"],
    [`trust ${percent(cell[TRUST])}`, "where answers are known, this share of the interpretations with such relevancy was right"],
  ];
  for (const [text, title] of told) {
    const number = element("span", "", text);
    number.title = title;
    numbers.append(number);
  }
  return numbers;
}

// Probability and relevancy of each token, as bars.
function barsOf(cell) {
  const table = element("table", "bars"), head = table.createTHead().insertRow(), body = table.createTBody();
  for (const name of ["word", "probability", "relevancy"]) {
    head.append(element("th", "", name));
    head.lastChild.scope = "col";
  }
  cell[RELEVANCY].forEach((relevancy, at) => {
    const text = typeof cell[TEXTS] === "string" ? "" : cell[TEXTS][at], word = element("th");
    word.scope = "row";
    word.append(element("bdi", "", visibleText(text)));
    body.insertRow().append(word, barCell(cell[PROBABILITY][at], "probable"), barCell(relevancy, "relevant"));
  });
  return table;
}

function barCell(thousandths, className) {
  const cell = element("td"), bar = element("span", `measure ${className}`);
  bar.style.setProperty("--part", (thousandths ?? 0) / 1000);
  cell.append(bar, decimal(thousandths));
  return cell;
}
