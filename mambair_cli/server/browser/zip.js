"use strict";
// Save results: each by itself, or all in a ZIP file, in which they are stored as they are.

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

const MOST_FILES = 65535, MOST_BYTES = 2 ** 32 - 1; // what a ZIP file of this kind can count
const TOO_MUCH = "a ZIP file holds 65,535 files and 4 GiB at most; save pictures with their own Download buttons, " +
  "or remove those from the list that are saved";

function checksum(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** Return a Blob with a ZIP file; throw an error where it would have too much. files: name and blob of each. */
async function makeZip(files) {
  const bytesOf = ({ name, blob }) => 30 + 46 + 2 * new TextEncoder().encode(name).length + blob.size;
  const sum = files.reduce((bytes, file) => bytes + bytesOf(file), 22);
  if (files.length > MOST_FILES || sum > MOST_BYTES) throw new Error(TOO_MUCH);
  const parts = [], directory = [];
  let offset = 0;
  const now = new Date();
  const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  const day = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  const field = (size, value) => Array.from({ length: size }, (_, byte) => (value / 256 ** byte) & 255);
  for (const { name, blob } of files) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const nameBytes = new TextEncoder().encode(name);
    // Version 2.0; names in UTF-8; stored.
    const common = [...field(2, 20), ...field(2, 0x0800), ...field(2, 0), ...field(2, time), ...field(2, day),
      ...field(4, checksum(bytes)), ...field(4, bytes.length), ...field(4, bytes.length),
      ...field(2, nameBytes.length), ...field(2, 0)];
    parts.push(new Uint8Array([0x50, 0x4b, 3, 4, ...common]), nameBytes, bytes);
    directory.push(new Uint8Array([0x50, 0x4b, 1, 2, ...field(2, 20), ...common, ...field(10, 0), ...field(4, offset)]),
      nameBytes);
    offset += 30 + nameBytes.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  const end = new Uint8Array([0x50, 0x4b, 5, 6, ...field(4, 0), ...field(2, files.length), ...field(2, files.length),
    ...field(4, size), ...field(4, offset), ...field(2, 0)]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

function download(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

async function downloadAll() {
  const used = new Set(), files = [];
  for (const item of items.filter((each) => each.result)) {
    const { result, resultName } = item;
    let name = resultName;
    for (let n = 2; used.has(name); n++) name = resultName.replace(/(\.[^.]*)$/, ` (${n})$1`);
    used.add(name);
    files.push({ name, blob: result, item });
  }
  download(await makeZip(files), "restored.zip");
  for (const { item, blob } of files) item.isSaved ||= item.result === blob; // it may have been made again
}
