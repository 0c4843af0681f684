// Downloads, and texts to take along.
async function download(format, query, outage, say) {
  try {
    const response = await persisting(() => ask("table", { ...query, format }), undefined, outage, say);
    if (format === "python") offer("The same in Python", await response.text());
    else save(await response.blob(), /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "")?.[1] ?? "interpretations");
  } catch (error) {
    say(error.message);
  }
}

function save(blob, name) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

// A text in a window of its own, to be copied.
function offer(title, text) {
  $("offer").setAttribute("aria-label", title);
  $("offer").querySelector("h2").textContent = title;
  $("offer").querySelector("pre").textContent = text;
  $("offer").showModal();
}

async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not allowed, as within a notebook's frame
    offer("Copy it from here", text);
    return;
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = label; }, 1500);
}
