// Shared by the pages of planes and of meshes: data, messages, pointers, keys, buttons, the loop of frames.
"use strict";

const element = id => document.getElementById(id);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const flags = new Set(location.hash.slice(1).split(","));  // bare, still, 8bit
const framed = window.parent !== window;  // such as in a report

function say(text) { element("message").textContent = text; }

// ---- data: scripts call enerfData(name, base64), from this page or from files beside it

const arrived = {}, awaited = {};

function enerfData(name, text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  arrived[name] = bytes;
  if (awaited[name]) awaited[name]();
}

function dataOf(name) {
  if (!arrived[name] && META.files) {
    const script = document.createElement("script");
    script.src = META.files[name];
    script.onerror = () => say("The file " + META.files[name] + " is missing or cannot be read.");
    document.head.append(script);
  }
  return new Promise(done => {
    const take = () => { done(arrived[name]); delete arrived[name]; };
    if (arrived[name]) take(); else awaited[name] = take;
  });
}

async function inflated(bytes) {
  if (!window.DecompressionStream) throw new Error("This page needs a newer browser, of 2023 or later.");
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// ---- WebGL

function context(options) {
  const canvas = element("canvas");
  const gl = canvas.getContext("webgl2", options);
  if (!gl) throw new Error("This page needs WebGL2, which this browser does not offer or has turned off.");
  canvas.addEventListener("webglcontextlost", event => {
    event.preventDefault();
    say("The graphics card was reset.");
  });
  canvas.addEventListener("webglcontextrestored", () => location.reload());
  return gl;
}

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, "#version 300 es\nprecision highp float;\n" + text);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(made).map(shader => gl.getShaderInfoLog(shader));
    throw new Error("The shaders of this page cannot be compiled: " + logs.join(" ") + gl.getProgramInfoLog(made));
  }
  const uniforms = {};
  for (let i = 0; i < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); i++) {
    const { name } = gl.getActiveUniform(made, i);
    uniforms[name.replace("[0]", "")] = gl.getUniformLocation(made, name);
  }
  return { made, uniforms };
}

// ---- the loop: a frame is drawn when something has changed

const loop = {
  draw: null, step: null, dirty: true, scale: 1, slow: 0, last: 0, moved: 0, drawn: 0,
  touch() { this.dirty = true; },
  start(draw, step) {
    this.draw = draw;
    this.step = step;
    const frame = now => {
      const seconds = Math.min((now - this.last) / 1000, 0.1);
      this.last = now;
      if (this.step(seconds)) { this.dirty = true; this.moved = now; }
      movedForKeys();
      this.adapt(now, seconds);
      if (this.dirty) {
        this.dirty = false;
        this.draw(this.scale);
        this.drawn++;
      }
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  },
  // While it moves, fewer pixels are drawn if frames take long; a still picture has all.
  adapt(now, seconds) {
    if (now - this.moved > 250) {
      this.slow = 0;
      if (this.scale < 1) { this.scale = 1; this.dirty = true; }
    } else {
      this.slow = 0.8 * this.slow + 0.2 * seconds;
      if (this.slow > 0.05 && this.scale > 0.5) { this.scale = Math.max(0.5, this.scale * 0.84); this.slow = 0.03; }
    }
  },
};

// ---- pointers: one drags, two pinch; the wheel zooms

function listen(actions) {
  const canvas = element("canvas"), down = new Map();
  const middle = () => {
    const points = [...down.values()], n = points.length;
    const x = points.reduce((sum, p) => sum + p.x, 0) / n, y = points.reduce((sum, p) => sum + p.y, 0) / n;
    return { x, y, spread: n > 1 ? Math.hypot(points[0].x - points[1].x, points[0].y - points[1].y) : 0 };
  };
  const position = event => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, position(event));
    if (actions.press) actions.press(position(event), event);
  });
  canvas.addEventListener("pointermove", event => {
    if (!down.has(event.pointerId)) return;
    const before = middle();
    down.set(event.pointerId, position(event));
    const after = middle(), second = down.size > 1 || event.shiftKey || event.buttons === 2;
    actions.drag(after.x - before.x, after.y - before.y, second, after);
    if (before.spread > 0 && after.spread > 0) actions.zoom(after.spread / before.spread, after);
    loop.touch();
    loop.moved = performance.now();
  });
  for (const kind of ["pointerup", "pointercancel", "lostpointercapture"])
    canvas.addEventListener(kind, event => {
      down.delete(event.pointerId);
      if (actions.release && !down.size) actions.release();
    });
  canvas.addEventListener("contextmenu", event => event.preventDefault());
  canvas.addEventListener("dblclick", () => actions.reset());
  if (framed) canvas.style.touchAction = "pan-y";
  canvas.addEventListener("wheel", event => {
    if (framed && !document.hasFocus()) return;  // it scrolls the page around, until there was a click in here
    event.preventDefault();
    const amount = event.deltaY * (event.deltaMode === 1 ? 33 : event.deltaMode === 2 ? 400 : 1);
    actions.zoom(Math.exp(-clamp(amount, -400, 400) / 400), position(event));
    loop.touch();
    loop.moved = performance.now();
  }, { passive: false });
}

// ---- keys: held arrows move, letters press buttons

// Keys that move, each "new" until a step has moved for it, then "seen"; one that is released before, as in a slow frame,
// is "tapped" and still moves for a step.
const held = new Map();
const shortcuts = {};

// Name of a key; that of + and - is the same with and without shift, which may be released first.
function named(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return { "=": "+", "_": "-" }[key] || key;
}

// Whether an element that has the focus uses a key itself.
function uses(target, key) {
  if (!target.matches) return false;
  if (target.matches("select")) return true;
  if (target.matches("input")) return key.startsWith("Arrow");
  return target.matches("button") && (key === " " || key === "Enter");
}

addEventListener("keydown", event => {
  const key = named(event);
  if (event.ctrlKey || event.metaKey || event.altKey || uses(event.target, key)) return;
  if (key.startsWith("Arrow") || key === "+" || key === "-") { if (held.get(key) !== "seen") held.set(key, "new"); event.preventDefault(); }
  else if (shortcuts[key] && !event.repeat) { shortcuts[key](); event.preventDefault(); }
});
addEventListener("keyup", event => {
  const key = named(event);
  if (held.get(key) === "new") held.set(key, "tapped");
  else if (held.get(key) === "seen") held.delete(key);
});
addEventListener("blur", () => held.clear());

// Records that a step has moved for the keys that are held.
function movedForKeys() {
  for (const [key, state] of held) {
    if (state === "tapped") held.delete(key);
    else held.set(key, "seen");
  }
}
shortcuts.h = () => document.body.classList.toggle("bare");

// ---- buttons

function button(text, key, pressed) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = text;
  made.title = "Key " + (key === " " ? "space" : key.toUpperCase());
  element("tools").append(made);
  const act = () => { pressed(made); loop.touch(); };
  made.addEventListener("click", act);
  shortcuts[key] = act;
  return made;
}

function toggle(text, key, on, changed) {
  const made = button(text, key, () => set(made.getAttribute("aria-pressed") !== "true"));
  const set = value => { made.setAttribute("aria-pressed", String(value)); changed(value); loop.touch(); };
  made.set = set;
  made.setAttribute("aria-pressed", String(on));
  return made;
}

function slider(text, value, changed) {
  const label = document.createElement("label"), made = document.createElement("input");
  Object.assign(made, { type: "range", min: 0, max: 1, step: 0.01, value });
  label.append(text, made);
  element("tools").append(label);
  made.addEventListener("input", () => { changed(Number(made.value)); loop.touch(); loop.moved = performance.now(); });
  return label;
}

function fullScreen() {
  if (!document.fullscreenEnabled) return;
  button("Full screen", "f", () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else document.documentElement.requestFullscreen();
  });
}

const calm = framed || flags.has("still") || matchMedia("(prefers-reduced-motion: reduce)").matches;
if (flags.has("bare")) document.body.classList.add("bare");

// Size the canvas in the window; its width over height is kept between two limits. Returns whether it has changed.
function fitted(lowest, highest) {
  const canvas = element("canvas"), stage = element("stage");
  if (!stage.clientWidth || !stage.clientHeight) return false;  // in a frame that is not displayed
  const aspect = clamp(stage.clientWidth / stage.clientHeight, lowest, highest);
  const width = Math.max(1, Math.round(Math.min(stage.clientWidth, stage.clientHeight * aspect)));
  const height = Math.max(1, Math.round(Math.min(stage.clientHeight, stage.clientWidth / aspect)));
  const dense = Math.min(devicePixelRatio || 1, 2), w = Math.round(width * dense), h = Math.round(height * dense);
  canvas.style.width = width + "px";
  canvas.style.height = height + "px";
  if (canvas.width === w && canvas.height === h) return false;
  canvas.width = w;
  canvas.height = h;
  return true;
}

async function begin(main) {
  try {
    await main();
    say("");
  } catch (error) {
    say(error.message || String(error));
  }
}
