// A page of baked planes: tiles of all planes are drawn back to front into a target of half floats, then shown.
"use strict";

const ACROSS = 60, CELLS = 31, PITCH = 34, PAGE = 2048;  // texels; each tile has a border of 1 in its page

const WHOLE = `
out vec2 at;
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0;
  at = corner;
  gl_Position = vec4(corner * 2.0 - 1.0, 0.0, 1.0);
}`;

const JOIN = `
uniform sampler2D rgb, alpha;
uniform float faintest;
out vec4 color;
void main() {
  ivec2 texel = ivec2(gl_FragCoord.xy);
  float a = texelFetch(alpha, texel, 0).g;
  color = vec4(texelFetch(rgb, texel, 0).rgb, a < faintest ? 0.0 : a);
}`;

// A point of the plane z = -1 at disparity d is (x, y, -1, d) in homogeneous coordinates of the reference camera.
const TILES = `
layout(location = 0) in vec4 place;  // column and row of a texel, its plane's disparity, its layer
layout(location = 1) in vec2 origin;  // column and row in its layer
uniform vec4 grid;  // fx, fy, cx, cy of the texels
uniform vec3 position;
uniform vec4 window;  // scale and shift from tangents to the canvas
out vec3 at;
out float t;
void main() {
  vec2 tangent = vec2(place.x + 0.5 - grid.z, grid.w - place.y - 0.5) / grid.xy;
  float w = 1.0 + place.z * position.z;
  gl_Position = w > 0.0
    ? vec4((tangent - place.z * position.xy) * window.xy + window.zw * w, 0.0, w)
    : vec4(2.0, 2.0, 2.0, 1.0);
  at = vec3((origin + 0.5) / 2048.0, place.w);
  t = 1.0 - place.z;
}`;

const BLEND = `
precision highp sampler2DArray;
uniform sampler2DArray pages;
uniform bool depth;
in vec3 at;
in float t;
out vec4 color;
void main() {
  color = texture(pages, at);
  if (depth) color.rgb = vec3(t);
}`;

const SHOW = `
uniform sampler2D target;
uniform bool depth;
uniform vec2 range;
uniform vec3 shades[9];
in vec2 at;
out vec4 color;
void main() {
  vec3 found = texture(target, at).rgb;
  if (depth) {
    float shade = clamp((found.r - range.x) / (range.y - range.x), 0.0, 1.0) * 8.0;
    int below = min(int(shade), 7);
    found = mix(shades[below], shades[below + 1], shade - float(below));
  }
  color = vec4(found, 1.0);
}`;

async function picture(bytes) {
  const isWebp = bytes[0] === 0x52;  // RIFF
  const blob = new Blob([bytes], { type: isWebp ? "image/webp" : "image/avif" });
  return createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
}

function plain(gl, filter) {
  const texture = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, texture);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, filter);
  for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T])
    gl.texParameteri(gl.TEXTURE_2D, name, gl.CLAMP_TO_EDGE);
  return texture;
}

// Pages of RGB and of alpha, which are opaque pictures, become layers of one RGBA texture.
async function loadPages(gl) {
  const array = gl.createTexture(), frame = gl.createFramebuffer(), join = program(gl, WHOLE, JOIN);
  gl.bindTexture(gl.TEXTURE_2D_ARRAY, array);
  gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, gl.RGBA8, PAGE, PAGE, META.pages);
  for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, name, gl.LINEAR);
  for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T])
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, name, gl.CLAMP_TO_EDGE);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  for (let layer = 0; layer < META.pages; layer++) {
    say("Loading " + Math.round((100 * layer) / META.pages) + " %");
    const bytes = await Promise.all([dataOf("rgb_" + layer), dataOf("alpha_" + layer)]);
    const images = await Promise.all(bytes.map(picture));
    const textures = images.map((image, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      const texture = plain(gl, gl.NEAREST);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, image);
      return texture;
    });
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTextureLayer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, array, 0, layer);
    gl.viewport(0, 0, images[0].width, images[0].height);
    gl.useProgram(join.made);
    gl.uniform1i(join.uniforms.rgb, 0);
    gl.uniform1i(join.uniforms.alpha, 1);
    gl.uniform1f(join.uniforms.faintest, (META.faintest - 0.5) / 255);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    textures.forEach(texture => gl.deleteTexture(texture));
    images.forEach(image => image.close());
    await new Promise(done => setTimeout(done, 0));
  }
  gl.deleteFramebuffer(frame);
  gl.activeTexture(gl.TEXTURE0);
  return array;
}

// Rectangles of the blocks of a tile that are drawn, bits of a number: [column, row, width, height] in texels. Their
// edges stay parallel to the canvas, so that rectangles that touch meet exactly.
function rectangles(bits) {
  const found = [], edge = block => Math.min(8 * block, CELLS);
  let open = new Map();
  for (let row = 0; row < 4; row++) {
    const next = new Map();
    for (let column = 0, end; column < 4; column = end + 1) {
      for (end = column; end < 4 && (bits >> (4 * row + end)) & 1; end++);
      if (end === column) continue;
      const key = 8 * column + end;
      let part = open.get(key);
      if (part) part[3] = edge(row + 1) - part[1];
      else found.push(part = [edge(column), edge(row), edge(end) - edge(column), edge(row + 1) - edge(row)]);
      next.set(key, part);
    }
    open = next;
  }
  return found;
}

// Rectangles in the order in which they are drawn: back to front. Bits say which tiles of each plane are stored. All
// are in one array of vertices: software renderers draw instances one by one.
async function loadTiles(gl) {
  const bits = await dataOf("index"), blocks = await dataOf("blocks"), [planes, rows, columns] = META.index;
  const parts = [];
  let number = 0;
  for (let i = 0; i < planes * rows * columns; i++) {
    if (!((bits[i >> 3] >> (i & 7)) & 1)) continue;
    const plane = Math.floor(i / (rows * columns)), cell = i % (rows * columns), place = number % (ACROSS * ACROSS);
    const x = (cell % columns) * CELLS, y = Math.floor(cell / columns) * CELLS;
    const u = (place % ACROSS) * PITCH + 1, v = Math.floor(place / ACROSS) * PITCH + 1, layer = Math.floor(number / (ACROSS * ACROSS));
    for (const [dx, dy, width, height] of rectangles(blocks[2 * number] + 256 * blocks[2 * number + 1]))
      parts.push([x + dx, y + dy, META.disparity[plane], layer, u + dx, v + dy, width, height]);
    number++;
  }
  const values = new Float32Array(24 * parts.length), indices = new Uint32Array(6 * parts.length);
  parts.reverse().forEach(([x, y, disparity, layer, u, v, width, height], i) => {
    for (let k = 0; k < 4; k++) {
      const dx = k & 1 ? width : 0, dy = k & 2 ? height : 0;
      values.set([x + dx, y + dy, disparity, layer, u + dx, v + dy], 24 * i + 6 * k);
    }
    indices.set([0, 1, 2, 2, 1, 3].map(k => 4 * i + k), 6 * i);
  });
  gl.bindVertexArray(gl.createVertexArray());
  gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
  for (const slot of [0, 1]) {
    gl.enableVertexAttribArray(slot);
    gl.vertexAttribPointer(slot, 4 - 2 * slot, gl.FLOAT, false, 24, 16 * slot);
  }
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, indices, gl.STATIC_DRAW);
  return parts.length;
}

// ---- the camera: it does not turn. Its frame is fixed in the plane at the disparity META.focus, as a window is.

const frame = META.frame;  // left, right, bottom, top of the photographs, as tangents
const camera = { x: 0, y: 0, z: 0, lookX: 0, lookY: 0, zoom: 1 };
const wanted = { ...camera };
let swaying = !calm, phase = 0;

// The nearest point in a convex polygon, counter-clockwise, of training cameras.
function within(hull, x, y) {
  let best = [x, y], nearest = Infinity, outside = false;
  hull.forEach((a, i) => {
    const b = hull[(i + 1) % hull.length], ex = b[0] - a[0], ey = b[1] - a[1], length = ex * ex + ey * ey;
    if (ex * (y - a[1]) - ey * (x - a[0]) < 0) outside = true;
    const share = length > 0 ? clamp(((x - a[0]) * ex + (y - a[1]) * ey) / length, 0, 1) : 0;
    const near = [a[0] + share * ex, a[1] + share * ey], distance = Math.hypot(near[0] - x, near[1] - y);
    if (distance < nearest) { nearest = distance; best = near; }
  });
  return outside || hull.length < 3 ? best : [x, y];
}

// Half the width and height of what the canvas shows, as tangents: the frame cut to the canvas' aspect, and zoomed.
function extent() {
  const canvas = element("canvas"), aspect = canvas.width / canvas.height;
  const width = (frame[1] - frame[0]) / 2, height = (frame[3] - frame[2]) / 2;
  return [Math.min(width, height * aspect) / camera.zoom, Math.min(height, width / aspect) / camera.zoom];
}

function limit(state) {
  [state.x, state.y] = within(META.hull, state.x, state.y);
  state.z = clamp(state.z, META.z[0], META.z[1]);
  state.zoom = clamp(state.zoom, 1, 8);
  const canvas = element("canvas"), aspect = canvas.width / canvas.height;
  const width = (frame[1] - frame[0]) / 2, height = (frame[3] - frame[2]) / 2;
  const x = width - Math.min(width, height * aspect) / state.zoom, y = height - Math.min(height, width / aspect) / state.zoom;
  state.lookX = clamp(state.lookX, -x, x);
  state.lookY = clamp(state.lookY, -y, y);
}

function view() {
  const [width, height] = extent();
  const x = (frame[0] + frame[1]) / 2 + camera.lookX - META.focus * camera.x;
  const y = (frame[2] + frame[3]) / 2 + camera.lookY - META.focus * camera.y;
  return { x, y, width, height };  // middle and half size of the image, as tangents
}

const span = [0, 1].map(axis => {
  const values = META.hull.map(point => point[axis]);
  return Math.max(...values) - Math.min(...values);
});

function move(x, y) {
  const canvas = element("canvas"), [width, height] = extent();
  wanted.x -= (x / canvas.clientWidth) * span[0] * 1.2;
  wanted.y += (y / canvas.clientHeight) * span[1] * 1.2;
  wanted.lookX -= (x / canvas.clientWidth) * 2 * width;
  wanted.lookY += (y / canvas.clientHeight) * 2 * height;
  if (swaying) sway.set(false);
  limit(wanted);
}

function zoom(factor, at) {
  const canvas = element("canvas"), [width, height] = extent(), before = wanted.zoom;
  wanted.zoom = clamp(before * factor, 1, 8);
  const change = camera.zoom / before - camera.zoom / wanted.zoom;  // what is under the pointer stays there
  wanted.lookX += ((2 * at.x) / canvas.clientWidth - 1) * width * change;
  wanted.lookY -= ((2 * at.y) / canvas.clientHeight - 1) * height * change;
  limit(wanted);
}

function reset() {
  Object.assign(wanted, { x: 0, y: 0, z: 0, lookX: 0, lookY: 0, zoom: 1 });
  limit(wanted);
}

function step(seconds) {
  const canvas = element("canvas"), speed = seconds * 0.6;
  for (const [key, x, y] of [["ArrowLeft", 1, 0], ["ArrowRight", -1, 0], ["ArrowUp", 0, 1], ["ArrowDown", 0, -1]])
    if (held.has(key)) move(x * speed * canvas.clientWidth, y * speed * canvas.clientHeight);
  const middle = { x: canvas.clientWidth / 2, y: canvas.clientHeight / 2 };
  if (held.has("+")) zoom(1 + 1.5 * seconds, middle);
  if (held.has("-")) zoom(1 / (1 + 1.5 * seconds), middle);
  if (swaying) {
    phase += seconds * 0.8;
    wanted.x = 0.3 * span[0] * Math.sin(phase);
    wanted.y = 0.15 * span[1] * Math.sin(1.7 * phase);
    limit(wanted);
  }
  const follow = 1 - Math.exp(-seconds * 14);
  let moving = false;
  for (const name in camera) {
    const rest = wanted[name] - camera[name];
    if (rest === 0) continue;
    const small = Math.abs(rest) < 1e-5 * (name === "zoom" ? 1 : Math.max(span[0], span[1], 1e-3));
    camera[name] = small ? wanted[name] : camera[name] + follow * rest;
    moving = true;
  }
  if (fitted(META.aspect * 0.6, META.aspect * 1.5)) { limit(wanted); Object.assign(camera, wanted); loop.touch(); }
  return moving;
}

let sway, inDepth = false;

function controls() {
  listen({ drag: move, zoom, reset });
  sway = toggle("Sway", " ", swaying, on => { swaying = on; });
  toggle("Depth", "d", false, on => { inDepth = on; });
  button("Reset", "r", reset);
  fullScreen();
  shortcuts.w = () => { wanted.z -= 0.2 * (META.z[1] - META.z[0]); limit(wanted); };
  shortcuts.s = () => { wanted.z += 0.2 * (META.z[1] - META.z[0]); limit(wanted); };
}

// What is drawn into; half floats where they can be, since 8 bits are rounded once for each layer.
function targets(gl) {
  const halves = !flags.has("8bit") && gl.getExtension("EXT_color_buffer_float") !== null;
  const made = { halves, width: 0, height: 0, frame: gl.createFramebuffer(), texture: null };
  made.resize = (width, height) => {
    if (made.width === width && made.height === height) return;
    if (made.texture) gl.deleteTexture(made.texture);
    made.texture = plain(gl, gl.LINEAR);
    gl.texStorage2D(gl.TEXTURE_2D, 1, halves ? gl.RGBA16F : gl.RGBA8, width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, made.frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, made.texture, 0);
    Object.assign(made, { width, height });
  };
  return made;
}

begin(async () => {
  const gl = context({ alpha: false, antialias: false, depth: false, powerPreference: "high-performance" });
  const canvas = element("canvas");
  const pages = await loadPages(gl);
  const count = await loadTiles(gl);
  const tiles = program(gl, TILES, BLEND), show = program(gl, WHOLE, SHOW), target = targets(gl);
  controls();
  fitted(META.aspect * 0.6, META.aspect * 1.5);
  limit(wanted);
  const draw = scale => {
    const width = Math.max(1, Math.round(canvas.width * scale)), height = Math.max(1, Math.round(canvas.height * scale));
    const seen = view(), back = inDepth ? 0 : META.white ? 1 : 0;
    target.resize(width, height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.viewport(0, 0, width, height);
    gl.clearColor(back, back, back, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.enable(gl.BLEND);
    gl.blendFuncSeparate(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA, gl.ONE, gl.ONE);
    gl.useProgram(tiles.made);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, pages);
    gl.uniform1i(tiles.uniforms.depth, inDepth);
    gl.uniform4f(tiles.uniforms.grid, ...META.grid);
    gl.uniform3f(tiles.uniforms.position, camera.x, camera.y, camera.z);
    gl.uniform4f(tiles.uniforms.window, 1 / seen.width, 1 / seen.height, -seen.x / seen.width, -seen.y / seen.height);
    gl.drawElements(gl.TRIANGLES, 6 * count, gl.UNSIGNED_INT, 0);
    gl.disable(gl.BLEND);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.useProgram(show.made);
    gl.bindTexture(gl.TEXTURE_2D, target.texture);
    gl.uniform1i(show.uniforms.depth, inDepth);
    gl.uniform2f(show.uniforms.range, ...META.range);
    gl.uniform3fv(show.uniforms.shades, META.shades.flat());
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  };
  loop.start(draw, step);
  window.enerf = {
    halves: target.halves,
    count,
    // Go somewhere at once: position {x, y, z} in the reference camera's frame, lookX, lookY, zoom.
    go(state) { sway.set(false); Object.assign(wanted, state); limit(wanted); Object.assign(camera, wanted); loop.touch(); },
    // The pinhole of the picture that is shown.
    camera() {
      const seen = view(), fx = canvas.width / (2 * seen.width), fy = canvas.height / (2 * seen.height);
      const cx = (seen.width - seen.x) * fx, cy = (seen.height + seen.y) * fy;
      return { position: [camera.x, camera.y, camera.z], fx, fy, cx, cy, width: canvas.width, height: canvas.height };
    },
    // Seconds a frame takes, over some frames that are waited for.
    time(frames) {
      const pixel = new Uint8Array(4), began = performance.now();
      for (let i = 0; i < frames; i++) { draw(1); gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel); }
      return (performance.now() - began) / 1000 / frames;
    },
    drawn: () => loop.drawn,
  };
});
