// Requests to the server. Errors are sentences for the reader.
class ServerGone extends Error {} // nobody answered
class Refused extends Error {} // the server did, and says what to change
class Busy extends Refused {} // it will take the same request later

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function ask(path, body, signal) {
  let response;
  try {
    response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new ServerGone("The server does not answer.");
  }
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({}));
  throw new (response.status === 503 ? Busy : Refused)(typeof detail === "string" ? detail : `The server answered ${response.status}; its terminal says more.`);
}

const askForJson = async (path, body, signal) => (await ask(path, body, signal)).json();

// The cells that a query asks for, as they come: an iterator of [event, data] that ends with the stream's last event.
async function* stream(query, signal) {
  const response = await ask(query.minus === null ? "interpret" : "compare", query, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new ServerGone("The server ended the answer early.");
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const [name, data] = event.split("\n").map((line) => line.slice(line.indexOf(": ") + 2));
        if (name === "failed") throw await serverAnswers() ? new Refused(JSON.parse(data).detail) : new ServerGone("The server was stopped.");
        if (name === "done") return;
        yield [name, JSON.parse(data)];
      }
    }
  } catch (error) {
    if (error instanceof TypeError) throw new ServerGone("The server does not answer."); // how fetch names a broken connection
    throw error;
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function serverAnswers() {
  try {
    return (await fetch("health")).ok;
  } catch {
    return false;
  }
}

// Does the work, and does it again when the server has been busy or away. `outage.over()` resolves when it is back.
async function persisting(work, signal, outage, tell = () => {}) {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (signal?.aborted || !(error instanceof ServerGone || error instanceof Busy)) throw error;
      if (error instanceof ServerGone) await outage.over();
      else {
        tell(`${error.message} This page tries again by itself.`);
        await pause(2000);
        tell(null);
      }
      signal?.throwIfAborted();
    }
  }
}

// While the server is away a sentence says so, once for everything that waits.
class Outage {
  constructor(banner, model) {
    Object.assign(this, { banner, model, ending: null });
  }

  over() {
    return this.ending ??= this.#wait().finally(() => { this.ending = null; });
  }

  async #wait() {
    this.#say("The server does not answer. Start it again with the same command: this page waits for it and goes on where it was.");
    while (!await serverAnswers()) await pause(1000);
    const { model } = await (await fetch("models")).json();
    if (model !== this.model) {
      this.#say(`The server now has another model, ${model}. Reload this page to use it.`);
      await new Promise(() => {}); // what waits was asked of the other model
    }
    this.banner.hidden = true;
  }

  #say(sentence) {
    this.banner.textContent = sentence;
    this.banner.hidden = false;
  }
}

// The last of several calls, once none has come for so many milliseconds. `cancel()` forgets it.
function later(milliseconds, work) {
  let timer;
  const call = (...given) => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds, ...given);
  };
  call.cancel = () => clearTimeout(timer);
  return call;
}
