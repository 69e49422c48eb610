"use strict";
// What the server has seen in a picture, in words.

const SEEN_QUALITY = 92; // JPEG quality below which traces of compression count

/** Say what was seen of a picture, and what the task makes of it. */
function describe(facts, task) {
  if (!facts) return "";
  const parts = [`${facts.width}×${facts.height} pixels`];
  if (facts.jpeg_quality !== null) parts.push(`JPEG of quality ${facts.jpeg_quality}`);
  else if (facts.quality_in_pixels !== null && facts.quality_in_pixels < SEEN_QUALITY) parts.push("was compressed");
  if (facts.sigma !== null) {
    const sigma = facts.sigma.reduce((sum, each) => sum + each, 0) / facts.sigma.length;
    parts.push(sigma < 1 ? "hardly any noise" : `noise of sigma ${sigma.toFixed(1)}`);
  }
  if (facts.reduce > 1) parts.push(`was enlarged ${facts.reduce} times before, or is soft`);
  const forAny = facts.compressed_alone
    ? "“Remove JPEG artefacts” does better where there is no noise" : "the model for noise of any kind suits";
  const advice = {
    upscale: facts.upscale === "real" ? "needs the model for real photographs" : "the model for clean pictures suits",
    denoise: facts.denoise === "white" ? "the model for white noise suits" : forAny,
    dejpeg: "",
  }[task];
  return parts.join(", ") + (advice && `: ${advice}`);
}
