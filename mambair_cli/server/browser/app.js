"use strict";
// The page for people without a shell: pictures are sent to this machine's own server, one after another.

const TASKS = { upscale: "enlarged", denoise: "denoised", dejpeg: "restored" };
const items = []; // {file, name, state, facts, ...}, in the order of the list
const batch = new Set(); // pictures of the run, until it is finished
const LOOKS_AT_ONCE = 3;
const MOST_NAMED = 3; // failures that one sentence names
const TOO_LARGE = 413; // status of a file that the server never takes
const GATHERED = 500; // milliseconds in which failures are gathered, to be announced in one sentence
const unseen = []; // pictures that nobody has looked at yet
const untold = []; // pictures that have failed since something was said
let viewer = null, models = [], isWorking = false, looking = 0, said = "", telling = 0, isSettling = false;

// ---- what is said, also to those who do not see the page
function say(text) {
  clearTimeout(telling);
  said = text;
  const failed = untold.splice(0).filter((item) => items.includes(item));
  byId("said").textContent = [...tellFailures(failed), text].filter(Boolean).join(". ");
}

function* tellFailures(failed) {
  for (const { name, message } of failed.slice(0, MOST_NAMED)) yield `${name}: ${message}`;
  const others = failed.length - MOST_NAMED;
  if (others > 0) yield others === 1 ? "1 other failed, too" : `${others} others failed, too`;
}

/** Note that a picture has failed, and tell it with what is said next, or soon. */
function fail(item, message) {
  Object.assign(item, { state: "failed", message });
  untold.push(item);
  update(item);
  clearTimeout(telling);
  telling = setTimeout(() => say(isWorking ? said : ""), GATHERED);
}

// ---- pictures that come in
/** Add pictures to the list. files: file and name of each; a name may have folders before it. */
function add(files, remarks = []) {
  for (const { file, name } of files) {
    const item = { file, name: name || "pasted.png", state: "ready", facts: null, message: "", done: 0, total: 0 };
    items.push(item);
    build(item);
    update(item);
    unseen.push(item);
  }
  const added = files.length === 1 ? "1 picture added" : `${files.length} pictures added`;
  say((files.length ? [added, ...remarks] : remarks).join("; "));
  lookAtSome();
}

/** Look at pictures, a few at a time: a browser has six connections, which restoring needs, too. */
function lookAtSome() {
  while (looking < LOOKS_AT_ONCE && unseen.length) {
    looking++;
    look(unseen.shift()).finally(() => { looking--; lookAtSome(); });
  }
}

/** Show a picture in the list, and what the server sees in it; what cannot be shown may be restored all the same. */
async function look(item) {
  const { error: unshown, ...before } = await showable(item.file).catch((error) => ({ error }));
  if (!items.includes(item)) return URL.revokeObjectURL(before.url); // it was removed meanwhile
  if (!unshown) {
    item.before = before;
    item.image.src = before.url;
    item.image.hidden = false;
    item.none.hidden = true;
  }
  try {
    if (unshown?.status === TOO_LARGE) throw unshown; // it is sent once
    item.facts = await (await send("/v1/inspect", item.file)).json();
  } catch (error) {
    const { message, status, isPartial } = error;
    Object.assign(item, { isBroken: status === 422 || status === TOO_LARGE, isPartial });
    if (item.state === "ready") fail(item, message);
  }
  update(item);
}

/** Return an address, width and height for an image that this browser can show, converted if need be. */
async function showable(blob) {
  for (const make of [() => blob, async () => (await send("/v1/show", blob)).blob()]) {
    const url = URL.createObjectURL(await make());
    const image = new Image();
    image.src = url;
    try {
      await image.decode();
      return { url, width: image.naturalWidth, height: image.naturalHeight };
    } catch { URL.revokeObjectURL(url); }
  }
  throw new Error("this browser cannot show the picture");
}

// ---- the list
function build(item) {
  item.image = element("img", { alt: "", hidden: true });
  item.none = element("span", { class: "none" });
  item.factsLine = element("p", { class: "facts" });
  item.bar = element("progress", { max: 1, value: 0, "aria-label": `Progress of ${item.name}` });
  item.line = element("p");
  const button = (text, act) => {
    const made = element("button", { type: "button", "aria-label": `${text}: ${item.name}` }, text);
    made.addEventListener("click", act);
    return made;
  };
  item.buttons = {
    stop: button("Stop", () => stop(item)),
    again: button("Again", () => start([item])),
    compare: button("Compare", () => compare(item)),
    save: button("Download", () => {
      download(item.result, item.resultName.split("/").pop());
      item.isSaved = true;
    }),
    remove: button("Remove", () => {
      const place = items.indexOf(item);
      remove(item);
      const next = items[place] ?? items.at(-1);
      const { remove: same } = next?.buttons ?? {};
      (same && !same.hidden ? same : findButton(next)).focus();
      say(`${item.name} removed`);
    }),
  };
  item.node = element("li", {}, item.image, item.none, element("h2", {}, item.name), item.factsLine,
    item.bar, item.line, element("div", { class: "row" }, ...Object.values(item.buttons)));
  byId("list").append(item.node);
}

const LINES = {
  ready: () => "",
  queued: () => "waits for its turn",
  sending: () => "is sent",
  waiting: () => "waits for the server",
  loading: () => "the model is loaded",
  restoring: (item) => item.total ? `${item.done} of ${item.total} tiles` : "is restored",
  saving: () => "is saved",
  done: (item) => item.message,
  failed: (item) => item.message,
  stopped: () => "stopped",
};
const isBusy = (item) => ["queued", "sending", "waiting", "loading", "restoring", "saving"].includes(item.state);

/** Return the first button of a picture that can be pressed; without a picture, what chooses one. */
const findButton = (item) =>
  Object.values(item?.buttons ?? {}).find((button) => !button.hidden) ?? byId("files");

/** Show what has changed of a picture in its row. */
function update(item) {
  const focused = document.activeElement; // before it is hidden, which takes the focus away
  item.factsLine.textContent = describe(item.facts, readTask());
  item.line.textContent = LINES[item.state](item);
  item.line.className = item.state;
  item.bar.hidden = !isBusy(item) || item.state === "queued";
  if (item.state === "restoring" && item.total) item.bar.value = item.done / item.total;
  else item.bar.removeAttribute("value");
  item.buttons.stop.hidden = !isBusy(item);
  item.buttons.again.hidden = !["done", "failed", "stopped"].includes(item.state);
  item.buttons.save.hidden = !item.result;
  item.buttons.compare.hidden = !isComparable(item);
  item.buttons.remove.hidden = isBusy(item);
  if (focused.hidden && item.node.contains(focused)) findButton(item).focus();
  settleSoon();
}

/** Settle what can be done, once for all changes before the next frame. */
function settleSoon() {
  if (!isSettling) requestAnimationFrame(() => { isSettling = false; settle(); });
  isSettling = true;
}

function settle() {
  const focused = document.activeElement; // before it is disabled
  const busy = items.some(isBusy);
  byId("start").disabled = !items.some(mayStart);
  byId("stop").disabled = !busy;
  byId("zip").disabled = items.filter((item) => item.result).length < 2;
  byId("clear").disabled = !items.length || busy;
  if (focused.disabled) [byId("stop"), byId("start"), byId("files")].find((each) => !each.disabled).focus();
}

const mayStart = (item) => !isBusy(item) && (!item.isBroken || (item.isPartial && byId("damaged").checked));

const isComparable = (item) => item.before && item.after; // what is damaged or too large may not be shown

function remove(item) {
  if (viewer && viewer.item === item) closeViewer();
  for (const picture of [item.before, item.after]) if (picture) URL.revokeObjectURL(picture.url);
  items.splice(items.indexOf(item), 1);
  if (unseen.includes(item)) unseen.splice(unseen.indexOf(item), 1);
  item.node.remove();
  settleSoon();
}

// ---- restoring
const readTask = () => document.querySelector("input[name=task]:checked").value;

function readSettings() {
  const task = readTask();
  const query = new URLSearchParams({ model: byId("model").value, strength: byId("strength").value / 100 });
  if (task === "upscale") query.set("scale", byId("scale").value);
  if (byId("damaged").checked) query.set("damaged", "true");
  if (byId("format").value) query.set("format", byId("format").value);
  return { task, query, scale: task === "upscale" ? byId("scale").value : "" };
}

async function start(chosen) {
  const settings = readSettings();
  for (const item of chosen) Object.assign(item, { settings, state: "queued", message: "" });
  for (const item of chosen) {
    batch.add(item);
    update(item);
  }
  if (isWorking) return;
  isWorking = true;
  let next;
  while ((next = items.find((item) => item.state === "queued"))) {
    const place = [...batch].filter((item) => !isBusy(item)).length + 1;
    say(`restoring ${place} of ${batch.size}`);
    await restore(next);
  }
  isWorking = false;
  const count = (state) => [...batch].filter((item) => item.state === state).length;
  const others = ["failed", "stopped"].filter(count).map((state) => `, ${count(state)} ${state}`);
  untold.length = 0; // all are announced now, also those that were announced before
  const failed = [...batch].filter((item) => item.state === "failed");
  say([`finished: ${count("done")} done${others.join("")}`, ...tellFailures(failed)].join(". "));
  for (const item of batch) item.isTold = true;
  batch.clear();
  if (items.length === 1 && items[0].state === "done" && isComparable(items[0])) compare(items[0]);
}

async function restore(item) {
  const { task, query } = item.settings;
  item.controller = new AbortController();
  item.state = "sending";
  update(item);
  const name = crypto.randomUUID();
  const events = new EventSource(`/v1/progress/${name}`);
  events.onmessage = (message) => {
    const { state, done, total, arrived } = JSON.parse(message.data);
    if (state === "done" || state === "failed") events.close();
    else if (arrived) Object.assign(item, { state, done, total });
    update(item);
  };
  try {
    const response = await sendPatiently(`/v1/${task}?${query}`, item, name);
    item.result = await response.blob();
    const report = JSON.parse(response.headers.get("Mambair-Report"));
    const format = item.result.type.split("/")[1];
    const mark = task === "upscale" ? `x${item.settings.scale}` : task === "denoise" ? "denoised" : "dejpeg";
    const { suffix } = byId("format").querySelector(`[value="${format}"]`).dataset;
    item.resultName = `${item.name.replace(/\.[^./]*$/, "")}_${mark}${suffix}`;
    if (item.after) URL.revokeObjectURL(item.after.url);
    item.after = null;
    item.made = report.model;
    const notes = report.warnings.length ? `; ${report.warnings.join("; ")}` : "";
    const size = `${report.width}×${report.height} pixels`;
    item.message = `${TASKS[task]} with ${report.model}: ${size}, ${report.seconds.toFixed(1)} s${notes}`;
    item.state = "done";
    item.isSaved = false;
  } catch (error) {
    if (error.name === "AbortError") item.state = "stopped";
    else {
      const have = isComparable(item) ? "Compare and Download have" : "Download has";
      const earlier = item.result ? ` (${have} the earlier result)` : "";
      item.isBroken ||= error.status === TOO_LARGE;
      fail(item, error.message + earlier);
    }
  }
  events.close();
  update(item);
  if (item.state === "done") await showResult(item);
}

/** Show the result of a picture, if it can be shown: one that cannot is there all the same. */
async function showResult(item) {
  const after = await showable(item.result).catch(() => null);
  if (!items.includes(item)) return after && URL.revokeObjectURL(after.url); // it was removed meanwhile
  item.after = after;
  if (!after) item.message += "; it cannot be shown here";
  if (viewer?.item === item) after ? compare(item, true) : closeViewer();
  update(item);
}

/** Send a picture; where the server has too many, try again when it says so. */
async function sendPatiently(path, item, name) {
  const options = { headers: { "Mambair-Progress": name }, signal: item.controller.signal };
  for (;;) {
    try {
      return await send(path, item.file, options);
    } catch (error) {
      if (error.status !== 503 || !error.wait) throw error;
      item.state = "waiting";
      update(item);
      await pause(error.wait);
      options.signal.throwIfAborted();
      item.state = "sending";
      update(item);
    }
  }
}

function stop(item) {
  if (item.state === "queued") item.state = "stopped";
  else item.controller?.abort();
  update(item);
}

// ---- comparisons
function compare(item, staysInPlace = false) {
  const hasFocus = byId("viewer").contains(document.activeElement);
  closeViewer();
  const { before, after } = item;
  const picture = (name, each, more) => ({ name, notes: [], width: each.width, height: each.height,
    source: each.url, pixelated: false, ...more });
  const isSmall = before.width < after.width;
  const pictures = isSmall
    ? [picture("before, smooth", before, {}), picture("before, as pixels", before, { pixelated: true })]
    : [picture("before", before, {})];
  pictures.push(picture(item.made, after, {}));
  byId("compare").hidden = false;
  byId("compare-title").textContent = item.name;
  viewer = createViewer(byId("viewer"), { width: after.width, height: after.height, pictures, scores: [] }, false);
  viewer.item = item;
  if (staysInPlace && !hasFocus) return;
  byId("compare-title").focus({ preventScroll: true });
  if (!staysInPlace) byId("compare").scrollIntoView({ block: "start" });
}

function closeViewer() {
  viewer?.close();
  viewer = null;
  byId("compare").hidden = true;
}

/** Close the comparison, and go back to its picture in the list. */
function leaveViewer() {
  const item = viewer?.item;
  closeViewer();
  item?.node.scrollIntoView({ block: "nearest" });
  item?.buttons.compare.focus({ preventScroll: true });
}

// ---- settings
function showModels() {
  const task = readTask();
  byId("scale-label").hidden = task !== "upscale";
  const chosen = byId("model").value;
  const kinds = [["auto", "chosen by a look at the picture"]];
  if (task !== "dejpeg") {
    kinds.push(["real", "for real photographs"], ["clean", task === "upscale" ? "for clean pictures" : "for white noise"]);
  }
  const scale = Number(byId("scale").value);
  const fitting = models.filter((model) => model.task === task && (task !== "upscale" || model.scale === scale));
  const group = (label, some) => some.length
    ? [element("optgroup", { label }, ...some.map((model) => element("option", { value: model.name }, model.name)))] : [];
  byId("model").replaceChildren(...kinds.map(([value, text]) => element("option", { value }, text)),
    ...group("On this machine", fitting.filter((model) => model.here)),
    ...group("Downloaded when used", fitting.filter((model) => !model.here)));
  byId("model").value = chosen;
  if (byId("model").selectedIndex < 0) byId("model").value = "auto";
}

// ---- what people do
byId("files").addEventListener("change", (event) => {
  add([...event.target.files].map((file) => ({ file, name: file.name })));
  event.target.value = "";
});
byId("settings").addEventListener("change", () => { showModels(); items.forEach(update); });
byId("settings").addEventListener("submit", (event) => event.preventDefault());
byId("strength").addEventListener("input", () => {
  byId("strength-shown").textContent = `${byId("strength").value} %`;
  byId("strength").setAttribute("aria-valuetext", `${byId("strength").value} %`);
});
byId("start").addEventListener("click", () => {
  const idle = items.filter(mayStart);
  const fresh = idle.filter((item) => item.state !== "done");
  for (const item of items) if (item.isBroken && !item.isTold) batch.add(item); // counted as failed
  start(fresh.length ? fresh : idle);
});
byId("stop").addEventListener("click", () => items.filter(isBusy).forEach(stop));
byId("zip").addEventListener("click", () => downloadAll().catch((error) => say(error.message)));
byId("clear").addEventListener("click", () => { [...items].forEach(remove); say("the list is cleared"); });
byId("close").addEventListener("click", leaveViewer);
byId("compare").addEventListener("keydown", (event) => { if (event.key === "Escape") leaveViewer(); });
window.addEventListener("beforeunload", (event) => {
  if (items.some((item) => isBusy(item) || (item.result && !item.isSaved))) event.preventDefault();
});

showModels();
settle();
(async () => {
  try {
    const health = await (await ask("/v1/health")).json();
    byId("where").textContent = `Pictures stay on this machine; it computes on ${health.device}.`;
    models = await (await ask("/v1/models")).json();
    showModels();
  } catch (error) { say(error.message); }
})();
