"use strict";
// Requests to the server that the page is from, and its messages in words of the page.

const byId = (id) => document.getElementById(id);
// The server's messages name what programs have; these are the words for what the page has instead.
const PARTIAL = "damaged=true of upscale, denoise and dejpeg restores what is there";
const PHRASES = {
  [PARTIAL]: `tick “${byId("damaged").parentElement.textContent.trim()}”`,
  "png, webp and tiff keep it, and background=white fills it": "save as PNG, WebP or TIFF, which keep it",
  "/v1/models shows all names": "choose another model",
};

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    await options.body?.slice(0, 1).arrayBuffer().catch(() => {
      throw new Error("the file has changed or is gone; choose it again", { cause: error });
    });
    throw new Error("the server does not answer; start mambair serve again", { cause: error });
  }
  if (response.ok) return response;
  const text = await response.text();
  let message = `the server answered ${response.status}`;
  try { message = JSON.parse(text).message; } catch { /* it is no JSON */ }
  const isPartial = message.includes(PARTIAL);
  for (const [theirs, ours] of Object.entries(PHRASES)) message = message.replace(theirs, ours);
  throw Object.assign(new Error(message), { status: response.status, isPartial,
    wait: Number(response.headers.get("Retry-After")) || 0 });
}

const send = (path, blob, options = {}) => ask(path, { method: "POST", body: blob, ...options });
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
