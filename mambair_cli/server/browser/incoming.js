"use strict";
// Pictures that are dropped or pasted, also in folders, where they are found as by the command.

const SUFFIXES = new Set(document.getElementById("files").dataset.suffixes.split(" "));
const RESULT = /^(.+)_(?:x\d+(?:\.\d+)?|upscaled|denoised|dejpeg)$/;
const KINDS_SHOWN = 8; // in one sentence
const stemOf = (name) => name.replace(/(.)\.[^.]*$/, "$1");
const suffixOf = (name) => name.slice(stemOf(name).length).toLowerCase();

/**
 * Return {files, remarks}: files with names, those of folders with their paths, and sentences on what is left out.
 *
 * transfer: the DataTransfer of an event; it is read before the first await, since the event then takes it away.
 */
async function gather(transfer) {
  const taken = [...transfer.items].filter((item) => item.kind === "file")
    .map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
  const files = [], left = { unread: [], results: [], failed: [], empty: [] };
  for (const [entry, file] of taken) {
    if (!entry?.isDirectory) {
      if (file) files.push({ file, name: file.name });
    } else if (!await gatherFolder(entry, entry.name, files, left) && !left.failed.length) left.empty.push(entry.name);
  }
  return { files, remarks: [...describeLeft(left)] };
}

/** Add the pictures in a folder and below it, in the order of their names, without what is hidden; return their number. */
async function gatherFolder(folder, path, files, left) {
  let count = 0;
  try {
    const entries = (await readAll(folder)).filter((each) => !each.name.startsWith("."));
    entries.sort((a, b) => (a.name < b.name ? -1 : 1));
    const isPicture = (each) => each.isFile && SUFFIXES.has(suffixOf(each.name));
    const known = new Set(entries.filter(isPicture).flatMap(({ name }) => [name, stemOf(name)]));
    for (const entry of entries.filter((each) => each.isFile)) {
      const name = `${path}/${entry.name}`;
      if (!isPicture(entry)) left.unread.push(name);
      else if (known.has(RESULT.exec(stemOf(entry.name))?.[1])) left.results.push(name);
      else {
        files.push({ file: await new Promise((...ends) => entry.file(...ends)), name });
        count++;
      }
    }
    for (const each of entries.filter((entry) => entry.isDirectory)) {
      count += await gatherFolder(each, `${path}/${each.name}`, files, left);
    }
  } catch { left.failed.push(path); }
  return count;
}

/** Return all entries of a folder; a reader gives some at a time, and none at the end. */
async function readAll(folder) {
  const reader = folder.createReader(), found = [];
  for (;;) {
    const some = await new Promise((...ends) => reader.readEntries(...ends));
    if (!some.length) return found;
    found.push(...some);
  }
}

function* describeLeft({ unread, results, failed, empty }) {
  for (const name of empty) yield `no pictures in the folder: ${name}`;
  for (const name of failed) yield `cannot read the folder: ${name}`;
  if (unread.length === 1) yield `left out a file of a format that is not supported: ${unread[0]}`;
  if (unread.length > 1) {
    const kinds = new Map();
    for (const name of unread) {
      const kind = suffixOf(name.split("/").pop()) || "without a suffix";
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
    }
    const shown = [...kinds].sort((a, b) => b[1] - a[1]).slice(0, KINDS_SHOWN).map(([kind, n]) => `${n} ${kind}`);
    const counts = shown.join(", ") + (kinds.size > KINDS_SHOWN ? ", and others" : "");
    yield `left out ${unread.length} files of formats that are not supported: ${counts}; such as ${unread[0]}`;
  }
  if (results.length === 1) {
    yield `left out a picture that is a result: ${results[0]}; drop it alone to restore it, too`;
  } else if (results.length) {
    yield `left out ${results.length} pictures that are results, such as ${results[0]}; `
      + "drop them alone to restore them, too";
  }
}

/** Add what was dropped or pasted. */
async function take(transfer) {
  const { files, remarks } = await gather(transfer);
  add(files, remarks);
}

for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (![...event.dataTransfer.types].includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop") take(event.dataTransfer);
  });
}
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) { event.preventDefault(); take(event.clipboardData); }
});
