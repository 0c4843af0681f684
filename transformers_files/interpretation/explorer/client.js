// Requests to the server. A stream of cells is an async iterator of [event, data].
class ServerGone extends Error {} // nobody answered
class Refused extends Error {} // the server did, with a sentence that says what to change

async function ask(path, body, signal) {
  let response;
  try {
    response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerGone();
  }
  if (response.ok) return response;
  const detail = (await response.json().catch(() => ({}))).detail;
  throw new Refused(typeof detail === "string" ? detail : `the server answered ${response.status}`);
}

const askForJson = async (path, body, signal) => (await ask(path, body, signal)).json();

async function* stream(path, body, signal) {
  const response = await ask(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", ended = false;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const [name, data] = event.split("\n").map((line) => line.slice(line.indexOf(": ") + 2));
        ended ||= name === "done" || name === "failed";
        yield [name, JSON.parse(data)];
      }
    }
  } catch (error) {
    if (error instanceof SyntaxError || error.name === "AbortError") throw error;
    throw new ServerGone();
  } finally {
    reader.cancel().catch(() => {});
  }
  if (!ended) throw new ServerGone();
}

// Resolves when the server answers again.
async function serverIsBack() {
  for (;;) {
    try {
      if ((await fetch("health")).ok) return;
    } catch { /* not yet */ }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}
