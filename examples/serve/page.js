// The service's page: a text is sent, and what comes back is shown as the page of a run shows an input.

const byId = (id) => document.getElementById(id);

/** What is asked for: empty fields are left to the service, and so is to say what is wrong with the others. */
function asked() {
  const body = { text: byId("text").value, decisions: byId("decisions").value, explain: true };
  for (const name of ["budget", "beam", "max_len_b"]) {
    const word = byId(name).value.trim();
    if (word) body[name] = Number.isFinite(Number(word)) ? Number(word) : word;
  }
  return body;
}

/** The service's answer to one text, and the seconds that it took; an error is one for people. */
async function answer() {
  const request = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(asked()) };
  const response = await fetch("v1/summarize", request).catch(() => null);
  if (response === null) throw new Error("The service does not answer: is it still running?");
  const found = await response.json().catch(() => null);
  if (typeof found?.error === "string") throw new Error(found.error);
  if (!found?.results?.[0]) throw new Error(`HTTP status ${response.status}, and no answer`);
  return [found.results[0], found.seconds];
}

/** Say how it stands; what went wrong stands out. */
function say(words, wrong = false) {
  byId("state").className = wrong ? "note" : "";
  byId("state").replaceChildren();
  appendText(byId("state"), words);
}

async function write() {
  const focused = document.activeElement === byId("send");
  byId("send").disabled = true;
  byId("detail").replaceChildren(); // what stands there is not of this text
  say("writing …");
  try {
    const [result, seconds] = await answer();
    byId("detail").replaceChildren(...details({ ...result, hypothesis: result.text }, result.path));
    byId("detail").scrollTop = 0;
    say(`written in ${seconds.toFixed(2)} seconds`);
  } catch (error) {
    say(error.message, true);
  } finally {
    byId("send").disabled = false;
    if (focused) byId("send").focus(); // a disabled button loses it
  }
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  write();
});
byId("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("send").disabled) byId("ask").requestSubmit();
});
