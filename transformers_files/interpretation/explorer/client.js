// Requests to the server. Errors are sentences for the reader.
class ServerGone extends Error {} // nobody answered
class Refused extends Error {} // the server did, and says what to change
class Busy extends Refused {} // it will take the same request later

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// A server may go without a word, as behind a tunnel that broke: a request that waits asks now and then whether it is there.
class Watch {
  // `signal` ends the request as well as the watch does.
  constructor(signal) {
    const gone = new AbortController();
    this.signal = signal ? AbortSignal.any([signal, gone.signal]) : gone.signal;
    this.timer = setInterval(async () => {
      if (!await serverAnswers()) {
        this.isGone = true;
        gone.abort();
      }
    }, 4000);
  }

  end() { clearInterval(this.timer); }

  // What an error means that the request ended with.
  explained(error) {
    // A TypeError is how fetch names a connection that was refused or broke.
    return this.isGone || error instanceof TypeError ? new ServerGone("The server does not answer.") : error;
  }
}

// "ok", "refuses" or "away".
async function serverState() {
  try {
    const response = await fetch("health", { cache: "no-store", signal: AbortSignal.timeout(8000) });
    if (!response.ok) return "refuses";
    return (await response.json()).status === "ok" ? "ok" : "away"; // one that is being stopped is as good as away
  } catch {
    return "away";
  }
}

const serverAnswers = async () => await serverState() === "ok";

async function ask(path, body, signal) {
  const watch = new Watch(signal);
  let response;
  try {
    response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: watch.signal });
  } catch (error) {
    throw watch.explained(error);
  } finally {
    watch.end();
  }
  if (response.ok) return response;
  const { detail } = await response.json().catch(() => ({}));
  throw new (response.status === 503 ? Busy : Refused)(typeof detail === "string" ? detail : `The server answered ${response.status}; its terminal says more.`);
}

const askForJson = async (path, body, signal) => (await ask(path, body, signal)).json();

// The cells that a query asks for, as they come: an iterator of [event, data] that ends after the last cell.
async function* stream(query, signal) {
  const watch = new Watch(signal);
  let reader, text = "";
  try {
    const response = await ask(query.minus === null ? "interpret" : "compare", query, watch.signal);
    reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new ServerGone("The server ended the answer early.");
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const [name, data] = event.split("\n").map((line) => line.slice(line.indexOf(": ") + 2));
        if (name === "failed") throw await serverAnswers() ? new Refused(JSON.parse(data).detail) : new ServerGone("The server is being stopped.");
        if (name === "done") return;
        yield [name, JSON.parse(data)];
      }
    }
  } catch (error) {
    throw watch.explained(error);
  } finally {
    watch.end();
    reader?.cancel().catch(() => {});
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
    for (let state; state !== "ok"; await pause(700)) {
      state = await serverState();
      if (state === "away") this.#say("The server does not answer. Start it again with the same command: this page waits for it and goes on where it was.");
      if (state === "refuses") this.#say("The server wants another token than this page has. Open the address that it printed when it began.");
    }
    const { model } = await (await fetch("models")).json();
    if (model !== this.model) {
      this.#say(`The server now has another model, ${model}. Reload this page to use it.`);
      await new Promise(() => {}); // what waits was asked of the other model
    }
    this.banner.hidden = true;
    this.banner.textContent = "";
  }

  #say(sentence) {
    if (this.banner.textContent !== sentence) this.banner.textContent = sentence; // an alert is read aloud when it changes
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
