"use strict";
// The viewer of pictures that lie on one another: a slider, side by side, flicker, and their difference.
// Zoom and place are one for all of them. Lengths in "sheet" pixels are those of the largest picture.

const MODES = [
  ["slider", "Slider", "s"],
  ["side", "Side by side", "b"],
  ["flicker", "Flicker", "f"],
  ["difference", "Difference", "d"],
];
const GAINS = [1, 2, 4, 8, 16, 32];
const LARGEST_ZOOM = 64;
const STEP = 1.25; // of zoom, for one turn of the wheel or one press of a key
const KEYS = [
  ["1 to 6", "picture on the right"],
  ["Shift + 1 to 6", "picture on the left"],
  ["s, b, f, d", "slider, side by side, flicker, difference"],
  ["Space or x", "swap the two pictures"],
  ["+ and −", "zoom in and out; the wheel and two fingers do, too"],
  ["0", "fit the window"],
  ["o", "one pixel of the picture on one of the screen"],
  ["arrows", "move the picture, or the slider where it has the focus"],
];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Write a text where it differs: screen readers say again what is written again. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Make a viewer in an element.
 *
 * data: width and height of the sheet; pictures with name, notes, width, height, pixelated, and source, an
 * address; scores with a, b (places of pictures), psnr and ssim.
 * hasPage: whether the viewer has the page to itself, and its keys work wherever the focus is.
 */
function createViewer(root, data, hasPage = true) {
  const state = { left: 0, right: data.pictures.length - 1, mode: "slider", gain: 4, cut: 0.5,
    zoom: 1, x: 0, y: 0, fits: true, swapped: false };
  const canvases = new Map();

  // ---- what is seen
  const choose = (side, label) => {
    const options = data.pictures.map((picture, place) =>
      element("option", { value: String(place) }, `${place + 1}  ${picture.name}`));
    const select = element("select", { "aria-label": label }, ...options);
    select.addEventListener("change", () => pick(side, Number(select.value)));
    return select;
  };
  const selects = { left: choose("left", "Left picture"), right: choose("right", "Right picture") };
  const buttons = new Map(MODES.map(([mode, label, key]) => {
    const button = element("button", { type: "button", title: `${label} (${key})` }, label);
    button.addEventListener("click", () => setMode(mode));
    return [mode, button];
  }));
  const swapButton = element("button", { type: "button", title: "Swap the two pictures (Space)" }, "Swap");
  swapButton.addEventListener("click", swap);
  const gain = element("select", { "aria-label": "Difference times" },
    ...GAINS.map((value) => element("option", { value: String(value) }, `× ${value}`)));
  gain.value = String(state.gain);
  gain.addEventListener("change", () => { state.gain = Number(gain.value); draw(); });
  const zooms = [["−", "Zoom out (−)", () => zoomBy(1 / STEP)], ["+", "Zoom in (+)", () => zoomBy(STEP)],
    ["Fit", "Fit the window (0)", fit], ["1:1", "One pixel on one of the screen (o)", oneToOne]];
  const zoomButtons = zooms.map(([text, title, act]) => {
    const button = element("button", { type: "button", title, "aria-label": title }, text);
    button.addEventListener("click", act);
    return button;
  });
  const toolbar = element("div", { class: "tools", role: "group", "aria-label": "View" },
    selects.left, selects.right, element("span", { class: "group" }, ...buttons.values()), swapButton, gain,
    element("span", { class: "group" }, ...zoomButtons));
  const makePane = () => {
    const images = [element("img", { alt: "", draggable: false }), element("img", { alt: "", draggable: false })];
    const canvas = element("canvas", { hidden: true });
    const sheet = element("div", { class: "sheet" }, ...images, canvas);
    const name = element("span", { class: "name" });
    return { pane: element("div", { class: "pane" }, sheet, name), sheet, images, canvas, name };
  };
  const panes = [makePane(), makePane()];
  const rightName = element("span", { class: "name right" });
  panes[0].pane.append(rightName);
  const slider = element("input", { type: "range", min: "0", max: "100", value: "50", step: "0.5", class: "slider",
    "aria-label": "Border between the left and the right picture" });
  slider.addEventListener("input", () => { state.cut = slider.value / 100; draw(); });
  const handle = element("div", { class: "handle", "aria-hidden": "true" });
  const stage = element("div", { class: "stage", tabindex: "0", role: "group",
    "aria-label": "Pictures; arrows move them, plus and minus zoom" }, panes[0].pane, panes[1].pane, handle);
  const score = element("p", { class: "score", role: "status" });
  const place = element("p", { class: "place" });
  root.replaceChildren(toolbar, stage, slider, element("div", { class: "below" }, score, place), table(), keys());

  function table() {
    const short = { class: "short" }, long = { class: "long" };
    const rows = data.pictures.map((picture, number) => element("tr", {},
      element("td", short, String(number + 1)), element("td", long, picture.name),
      element("td", short, `${picture.width}×${picture.height}`), element("td", {}, picture.notes.join("; "))));
    const hasSsim = data.scores.some((pair) => pair.ssim !== null);
    const showSsim = (pair) => element("td", short, pair.ssim === null ? "–" : pair.ssim.toFixed(4));
    const pairs = data.scores.map((pair) => element("tr", {},
      element("td", long, `${data.pictures[pair.a].name} and ${data.pictures[pair.b].name}`),
      element("td", short, showPsnr(pair)), ...(hasSsim ? [showSsim(pair)] : [])));
    const head = (...names) => element("thead", {}, element("tr", {},
      ...names.map((name) => element("th", { scope: "col" }, name))));
    const parts = [element("table", { "aria-label": "Pictures" }, head("No.", "Picture", "Pixels", "Notes"),
      element("tbody", {}, ...rows))];
    if (pairs.length) {
      parts.push(element("table", { "aria-label": "How close they are" },
        head("How close", "PSNR", ...(hasSsim ? ["SSIM"] : [])), element("tbody", {}, ...pairs)));
    }
    return element("div", { class: "tables" }, ...parts);
  }

  function keys() {
    const rows = KEYS.map(([key, does]) => element("tr", {},
      element("td", { class: "short" }, element("kbd", {}, key)), element("td", {}, does)));
    return element("details", {}, element("summary", {}, "Keys"), element("table", {}, element("tbody", {}, ...rows)));
  }

  function showPsnr(pair) {
    return pair.psnr === null ? "equal" : `${pair.psnr.toFixed(2)} dB`;
  }

  // ---- what is done
  function pick(side, number) {
    if (number < data.pictures.length) { state[side] = number; draw(); }
  }
  function setMode(mode) { state.mode = mode; if (state.fits) fit(); else draw(); }
  function swap() {
    if (state.mode === "flicker") state.swapped = !state.swapped;
    else [state.left, state.right] = [state.right, state.left];
    draw();
  }
  function paneSize() {
    const box = panes[0].pane.getBoundingClientRect();
    return [box.width, box.height];
  }
  function fit() {
    arrange();
    const [width, height] = paneSize();
    state.fits = true;
    state.zoom = Math.min(width / data.width, height / data.height) || 1;
    state.x = (width - data.width * state.zoom) / 2;
    state.y = (height - data.height * state.zoom) / 2;
    draw();
  }
  function oneToOne() { zoomTo(1 / devicePixelRatio, ...paneSize().map((side) => side / 2)); }
  function zoomBy(factor, x, y) {
    const [width, height] = paneSize();
    zoomTo(state.zoom * factor, x ?? width / 2, y ?? height / 2);
  }
  function zoomTo(zoom, x, y) {
    const [width, height] = paneSize();
    const smallest = Math.min(1, width / data.width, height / data.height) / 2;
    const next = Math.min(LARGEST_ZOOM, Math.max(smallest, zoom));
    state.x = x - (x - state.x) * (next / state.zoom);
    state.y = y - (y - state.y) * (next / state.zoom);
    state.zoom = next;
    state.fits = false;
    move(0, 0);
  }
  function move(dx, dy) {
    const [width, height] = paneSize();
    const keep = 40; // pixels of the picture that stay in sight
    state.x = Math.min(width - keep, Math.max(keep - data.width * state.zoom, state.x + dx));
    state.y = Math.min(height - keep, Math.max(keep - data.height * state.zoom, state.y + dy));
    if (dx || dy) state.fits = false;
    draw();
  }

  // ---- how it is drawn
  function arrange() {
    stage.className = `stage ${state.mode}`;
    panes[1].pane.hidden = state.mode !== "side";
  }
  function show(image, number) {
    const picture = data.pictures[number];
    if (image.getAttribute("src") !== picture.source) image.src = picture.source;
    image.alt = picture.name;
    const large = picture.pixelated || state.zoom * devicePixelRatio >= 2;
    image.style.imageRendering = large ? "pixelated" : "auto";
  }
  function draw() {
    arrange();
    const { left, right, mode } = state;
    const [first, second] = panes;
    const single = mode === "flicker" ? (state.swapped ? left : right) : null;
    show(first.images[0], single ?? left);
    show(first.images[1], single ?? right);
    show(second.images[0], right);
    first.images[1].hidden = mode !== "slider";
    second.images[1].hidden = true;
    const [width] = paneSize();
    const cut = Math.min(data.width, Math.max(0, (state.cut * width - state.x) / state.zoom));
    const isCut = mode === "slider"; // both are: what is transparent shows nothing of the other
    first.images[0].style.clipPath = isCut ? `inset(0 ${data.width - cut}px 0 0)` : "none";
    first.images[1].style.clipPath = isCut ? `inset(0 0 0 ${cut}px)` : "none";
    for (const { sheet } of panes) {
      sheet.style.width = `${data.width}px`;
      sheet.style.height = `${data.height}px`;
      sheet.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.zoom})`;
    }
    if (mode !== "slider" && document.activeElement === slider) stage.focus(); // before it is hidden
    handle.hidden = slider.hidden = mode !== "slider";
    handle.style.left = `${state.cut * 100}%`;
    gain.hidden = mode !== "difference";
    first.name.textContent = mode === "difference"
      ? `difference, × ${state.gain}` : data.pictures[single ?? left].name;
    second.name.textContent = rightName.textContent = data.pictures[right].name;
    rightName.hidden = mode !== "slider";
    first.canvas.hidden = mode !== "difference";
    first.images[0].hidden = mode === "difference";
    if (mode === "difference") drawDifference(first.canvas);
    selects.left.value = String(left);
    selects.right.value = String(right);
    for (const [name, button] of buttons) button.setAttribute("aria-pressed", String(name === mode));
    write(score, describePair());
    slider.setAttribute("aria-valuetext", `${Math.round(100 * state.cut)} %`);
  }
  function describePair() {
    const [a, b] = [state.left, state.right];
    const pair = data.scores.find((each) => (each.a === a && each.b === b) || (each.a === b && each.b === a));
    const zoom = `${Math.round(state.zoom * devicePixelRatio * 100)} %`;
    if (!data.scores.length) return zoom;
    if (a === b) return `the same picture on both sides; ${zoom}`;
    if (!pair) return `pictures of different sizes; ${zoom}`;
    if (pair.psnr === null) return `equal pictures; ${zoom}`;
    return `PSNR ${showPsnr(pair)}` + (pair.ssim === null ? "" : `, SSIM ${pair.ssim.toFixed(4)}`) + `; ${zoom}`;
  }
  /** Return the pixels of a picture at the size of the sheet, or null before it is decoded. */
  function read(number) {
    if (canvases.has(number)) return canvases.get(number);
    const image = new Image();
    canvases.set(number, null);
    image.addEventListener("load", () => {
      const canvas = element("canvas", { width: data.width, height: data.height });
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.imageSmoothingEnabled = !data.pictures[number].pixelated;
      context.drawImage(image, 0, 0, data.width, data.height);
      canvases.set(number, context);
      draw();
    });
    image.src = data.pictures[number].source;
    return null;
  }
  let drawn = "";
  function drawDifference(canvas) {
    const [one, other] = [read(state.left), read(state.right)];
    const wanted = `${state.left} ${state.right} ${state.gain}`;
    if (!one || !other || wanted === drawn) return;
    drawn = wanted;
    canvas.width = data.width;
    canvas.height = data.height;
    const whole = [0, 0, data.width, data.height];
    const result = one.getImageData(...whole);
    const a = result.data, b = other.getImageData(...whole).data;
    for (let i = 0; i < a.length; i += 4) {
      // What is seen: on black, and on white, whichever differs more.
      const [p, q] = [a[i + 3], b[i + 3]];
      for (let c = i; c < i + 3; c++) {
        const onBlack = (a[c] * p - b[c] * q) / 255;
        a[c] = Math.max(Math.abs(onBlack), Math.abs(onBlack - p + q)) * state.gain;
      }
      a[i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(result, 0, 0);
  }
  function tellPixel(event, pane) {
    const box = pane.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left - state.x) / state.zoom);
    const y = Math.floor((event.clientY - box.top - state.y) / state.zoom);
    if (x < 0 || y < 0 || x >= data.width || y >= data.height) { place.textContent = ""; return; }
    const colours = [state.left, state.right].map((number) => {
      const context = read(number);
      if (!context) return "…";
      const [red, green, blue, alpha] = context.getImageData(x, y, 1, 1).data;
      if (alpha === 0) return "transparent";
      return `${red} ${green} ${blue}` + (alpha < 255 ? ` (alpha ${alpha})` : "");
    });
    place.textContent = `${x}, ${y}: left ${colours[0]}, right ${colours[1]}`;
  }

  // ---- pointers and keys
  const pointers = new Map();
  let sliding = false;
  let pressed = null; // where one pointer went down, as long as it has not moved
  function slide(event) {
    const box = panes[0].pane.getBoundingClientRect();
    state.cut = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    slider.value = String(100 * state.cut);
    draw();
  }
  stage.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const box = panes[0].pane.getBoundingClientRect();
    const reach = event.pointerType === "touch" ? 28 : 12;
    const near = Math.abs(event.clientX - box.left - state.cut * box.width) < reach;
    sliding = state.mode === "slider" && near && pointers.size === 0;
    pressed = pointers.size ? null : event;
    pointers.set(event.pointerId, event);
    try { stage.setPointerCapture(event.pointerId); } catch { /* the pointer is gone already */ }
  });
  stage.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) { tellPixel(event, event.target.closest(".pane") ?? panes[0].pane); return; }
    if (pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) > 3) pressed = null;
    if (sliding) slide(event);
    else if (pointers.size === 2) pinch(event, before);
    else move(event.clientX - before.clientX, event.clientY - before.clientY);
    pointers.set(event.pointerId, event);
  });
  function pinch(event, before) {
    const [other] = [...pointers.values()].filter((each) => each.pointerId !== event.pointerId);
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    const box = (event.target.closest?.(".pane") ?? panes[0].pane).getBoundingClientRect();
    move((event.clientX - before.clientX) / 2, (event.clientY - before.clientY) / 2);
    zoomBy(apart(event) / Math.max(1, apart(before)), (event.clientX + other.clientX) / 2 - box.left,
      (event.clientY + other.clientY) / 2 - box.top);
  }
  const release = (event) => { pointers.delete(event.pointerId); sliding = false; };
  stage.addEventListener("pointerup", (event) => {
    if (pressed && pointers.has(event.pointerId) && state.mode === "slider") slide(event); // a click
    pressed = null;
    release(event);
  });
  stage.addEventListener("pointercancel", release);
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    const box = (event.target.closest(".pane") ?? panes[0].pane).getBoundingClientRect();
    zoomBy(STEP ** (-event.deltaY / 100), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  stage.addEventListener("dblclick", () => { if (state.fits) oneToOne(); else fit(); });

  const actions = { " ": swap, x: swap, "+": () => zoomBy(STEP), "=": () => zoomBy(STEP),
    "-": () => zoomBy(1 / STEP), 0: fit, o: oneToOne, ArrowLeft: () => move(40, 0), ArrowRight: () => move(-40, 0),
    ArrowUp: () => move(0, 40), ArrowDown: () => move(0, -40) };
  for (const [mode, , key] of MODES) actions[key] = () => setMode(mode);
  function press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const tag = event.target.tagName;
    const isOwn = /^(INPUT|SELECT|TEXTAREA)$/.test(tag);
    if (isOwn && /^(Arrow|Page|Home|End)|^ $|^\d$/.test(event.key)) return;
    const isStill = event.target !== stage && event.target !== document.body; // a button, or other text
    if (isStill && (event.key === " " || event.key.startsWith("Arrow"))) return;
    if (isOwn && tag !== "INPUT" && event.key.length === 1) return; // letters choose in a list
    const digit = /^Digit([1-6])$/.exec(event.code);
    if (digit) pick(event.shiftKey ? "left" : "right", Number(digit[1]) - 1);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
  }
  const listener = hasPage ? document : root;
  listener.addEventListener("keydown", press);
  const observer = new ResizeObserver(() => { if (state.fits) fit(); else draw(); });
  observer.observe(stage);
  fit();
  return { close() { listener.removeEventListener("keydown", press); observer.disconnect(); root.replaceChildren(); } };
}
