// A page of a mesh, and of a second one to compare it with. See mesh_code.py for the encoding.
"use strict";

const VERTEX = `
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec3 color;
uniform mat4 view, projection;
out vec3 place, seen, up, tint;
void main() {
  vec4 at = view * vec4(position, 1.0);
  place = position;
  seen = at.xyz;
  up = mat3(view) * normal;
  tint = color;
  gl_Position = projection * at;
}`;

const FRAGMENT = `
uniform vec4 plane;  // what is beyond it is cut off
uniform bool colored, lines;
in vec3 place, seen, up, tint;
out vec4 color;
void main() {
  if (dot(plane.xyz, place) > plane.w) discard;
  if (lines) { color = vec4(0.05, 0.1, 0.2, 0.6); return; }
  vec3 flatUp = normalize(cross(dFdx(seen), dFdy(seen)));  // towards the camera
  vec3 n = normalize(gl_FrontFacing ? up : -up);
  if (!(dot(n, flatUp) > 0.5)) n = flatUp;  // at creases
  float light = 0.28 + 0.62 * max(dot(n, normalize(vec3(0.3, 0.5, 0.8))), 0.0) + 0.14 * (n.y * 0.5 + 0.5);
  vec3 base = colored ? tint : vec3(0.80, 0.81, 0.84);
  if (!gl_FrontFacing && !colored) base = vec3(0.85, 0.50, 0.38);
  color = vec4(base * (colored ? 0.45 + 0.6 * light : light), 1.0);
}`;

function decode(content, meta) {
  const n = meta.vertices, symbols = content.subarray(0, meta.symbols);
  let at = meta.symbols, next = 0, made = 0, count = 0, head = 0, tail = 0;
  const number = () => {
    let value = 0, shift = 0, byte;
    do { byte = content[at++]; value |= (byte & 127) << shift; shift += 7; } while (byte > 127);
    return value;
  };
  const faces = new Uint32Array(3 * meta.faces), parents = new Int32Array(3 * n);
  const queue = new Int32Array(3 * (3 * meta.faces + 3));
  const push = (p, q, o) => { queue[tail] = p; queue[tail + 1] = q; queue[tail + 2] = o; tail += 3; };
  const vertex = (back, p, q, o) => {
    if (back > 0) return made - back;
    parents.set([p, q, o], 3 * made);
    return made++;
  };
  const corner = () => vertex(number(), made - 1, made - 1, made - 1);
  while (count < meta.faces || head < tail) {
    if (head === tail) {
      const a = corner(), b = corner(), c = corner();
      faces.set([a, b, c], 3 * count++);
      push(a, b, c); push(b, c, a); push(c, a, b);
      continue;
    }
    const p = queue[head], q = queue[head + 1], o = queue[head + 2], symbol = symbols[next++];
    head += 3;
    if (symbol === 0) continue;
    const v = symbol === 1 ? vertex(0, p, q, o) : symbol === 2 ? vertex(number(), p, q, o)
      : symbol === 5 ? queue[tail - 1] : queue[head + symbol - 3];
    faces.set([q, p, v], 3 * count++);
    push(p, v, q); push(v, q, p);
  }
  const start = meta.symbols + meta.references, grid = new Int32Array(3 * n), colors = new Uint8Array(3 * n);
  for (let axis = 0; axis < 3; axis++) {
    for (let i = 0; i < n; i++) {
      const byte = k => content[start + (3 * k + axis) * n + i];
      const zigzag = byte(0) | (byte(1) << 8) | (byte(2) << 16), [p, q, o] = parents.subarray(3 * i, 3 * i + 3);
      const guess = p < 0 ? 0 : grid[3 * p + axis] + grid[3 * q + axis] - grid[3 * o + axis];
      grid[3 * i + axis] = guess + ((zigzag >> 1) ^ -(zigzag & 1));
      if (meta.colors)
        colors[3 * i + axis] = (p < 0 ? 0 : colors[3 * p + axis]) + content[start + (9 + axis) * n + i];
    }
  }
  return { faces, grid, colors };
}

// Normals of vertices: sums of those of their faces, weighted by area.
function normals(positions, faces) {
  const found = new Float32Array(positions.length);
  for (let i = 0; i < faces.length; i += 3) {
    const [a, b, c] = [3 * faces[i], 3 * faces[i + 1], 3 * faces[i + 2]];
    const u = [0, 1, 2].map(k => positions[b + k] - positions[a + k]);
    const v = [0, 1, 2].map(k => positions[c + k] - positions[a + k]);
    for (let k = 0; k < 3; k++) {
      const across = u[(k + 1) % 3] * v[(k + 2) % 3] - u[(k + 2) % 3] * v[(k + 1) % 3];
      found[a + k] += across; found[b + k] += across; found[c + k] += across;
    }
  }
  for (let i = 0; i < found.length; i += 3) {
    const length = Math.hypot(found[i], found[i + 1], found[i + 2]) || 1;
    for (let k = 0; k < 3; k++) found[i + k] /= length;
  }
  return found;
}

async function loadMesh(gl, number) {
  const meta = META.meshes[number];
  say("Loading " + meta.name);
  const { faces, grid, colors } = decode(await inflated(await dataOf("mesh_" + number)), meta);
  const positions = new Float32Array(grid.length);
  for (let i = 0; i < grid.length; i++)
    positions[i] = (grid[i] * meta.step + meta.low[i % 3] - META.center[i % 3]) / META.radius;
  const made = { meta, faces, positions, count: faces.length, array: gl.createVertexArray(), wires: null };
  gl.bindVertexArray(made.array);
  [positions, normals(positions, faces), colors].forEach((values, slot) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(slot);
    gl.vertexAttribPointer(slot, 3, slot === 2 ? gl.UNSIGNED_BYTE : gl.FLOAT, slot === 2, 0, 0);
  });
  made.triangles = gl.createBuffer();
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, made.triangles);
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW);
  return made;
}

// Buffer of the edges of all faces, each once where two faces share it.
function wires(gl, mesh) {
  const { faces } = mesh, edges = new Set(), n = mesh.positions.length;
  for (let i = 0; i < faces.length; i++) {
    const a = faces[i], b = faces[i % 3 === 2 ? i - 2 : i + 1];
    edges.add(Math.min(a, b) * n + Math.max(a, b));
  }
  const ends = new Uint32Array(2 * edges.size);
  let i = 0;
  for (const key of edges) { ends[i++] = Math.floor(key / n); ends[i++] = key % n; }
  mesh.wires = gl.createBuffer();
  mesh.ends = ends.length;
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.wires);
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, ends, gl.STATIC_DRAW);
}

// ---- the camera orbits a target; angles in radians, lengths in radii of the mesh

const FIELD = 0.36;  // tangent of half the smaller field of view
const home = { yaw: META.yaw, pitch: 0.25, distance: 2.9, x: 0, y: 0, z: 0 };
const camera = { ...home }, wanted = { ...home };
let swaying = !calm, phase = 0, sway;
const shown = { wire: false, colored: META.meshes.some(mesh => mesh.colors), share: 0.5, axis: 0, cut: 1 };

function axes(state) {
  const [sy, cy, sp, cp] = [Math.sin(state.yaw), Math.cos(state.yaw), Math.sin(state.pitch), Math.cos(state.pitch)];
  return { right: [cy, 0, -sy], up: [-sp * sy, cp, -sp * cy], back: [cp * sy, sp, cp * cy] };
}

function limit() {
  wanted.pitch = clamp(wanted.pitch, -1.55, 1.55);
  wanted.distance = clamp(wanted.distance, 0.05, 20);
  for (const name of ["x", "y", "z"]) wanted[name] = clamp(wanted[name], -2, 2);
}

function turn(x, y, pan) {
  const canvas = element("canvas"), size = Math.min(canvas.clientWidth, canvas.clientHeight);
  if (swaying) sway.set(false);
  if (pan) {
    const { right, up } = axes(wanted), scale = (2 * FIELD * wanted.distance) / size;
    ["x", "y", "z"].forEach((name, k) => { wanted[name] += (up[k] * y - right[k] * x) * scale; });
  } else {
    wanted.yaw -= (x / size) * 3.5;
    wanted.pitch += (y / size) * 3.5;
  }
  limit();
}

function zoom(factor) {
  wanted.distance /= factor;
  limit();
}

function reset() {
  Object.assign(wanted, home);
  phase = 0;
  camera.yaw = wanted.yaw + ((camera.yaw - wanted.yaw) % (2 * Math.PI));
}

function step(seconds) {
  const canvas = element("canvas"), size = Math.min(canvas.clientWidth, canvas.clientHeight) * 0.5 * seconds;
  for (const [key, x, y] of [["ArrowLeft", 1, 0], ["ArrowRight", -1, 0], ["ArrowUp", 0, 1], ["ArrowDown", 0, -1]])
    if (held.has(key)) turn(x * size, y * size, false);
  if (held.has("+")) zoom(1 + 1.5 * seconds);
  if (held.has("-")) zoom(1 / (1 + 1.5 * seconds));
  if (swaying) {
    const before = Math.sin(phase);
    phase += seconds * 0.5;
    wanted.yaw += 0.6 * (Math.sin(phase) - before);
  }
  const follow = 1 - Math.exp(-seconds * 14);
  let moving = false;
  for (const name in camera) {
    const rest = wanted[name] - camera[name];
    if (rest === 0) continue;
    camera[name] = Math.abs(rest) < 1e-5 ? wanted[name] : camera[name] + follow * rest;
    moving = true;
  }
  if (fitted(0, Infinity)) loop.touch();
  return moving;
}

function matrices(aspect) {
  const { right, up, back } = axes(camera), near = 0.01 * camera.distance, far = camera.distance + 4;
  const eye = ["x", "y", "z"].map((name, k) => camera[name] + back[k] * camera.distance);
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const view = [0, 1, 2].flatMap(k => [right[k], up[k], back[k], 0]).concat(
    [-dot(right, eye), -dot(up, eye), -dot(back, eye), 1]);
  const height = FIELD / Math.min(aspect, 1), width = height * aspect, depth = far - near;
  const projection = [1 / width, 0, 0, 0, 0, 1 / height, 0, 0, 0, 0, -(far + near) / depth, -1, 0, 0,
    (-2 * far * near) / depth, 0];
  return { view, projection };
}

function controls(meshes) {
  let dividing = false, compare;
  const canvas = element("canvas"), near = at => meshes.length > 1 && Math.abs(at.x - shown.share * canvas.clientWidth) < 14;
  const place = share => {
    shown.share = clamp(share, 0, 1);
    const box = canvas.getBoundingClientRect();
    element("divider").style.left = box.left + shown.share * box.width + "px";
    compare.querySelector("input").value = shown.share;
  };
  listen({
    press: at => { dividing = near(at); },
    release: () => { dividing = false; },
    drag: (x, y, second, at) => { if (dividing) place(at.x / canvas.clientWidth); else turn(x, y, second); },
    zoom,
    reset,
  });
  sway = toggle("Sway", " ", swaying, on => { swaying = on; });
  toggle("Wireframe", "w", false, on => { shown.wire = on; });
  if (shown.colored) toggle("Colors", "c", true, on => { shown.colored = on; });
  const cut = slider("Clip", 1, value => { shown.cut = value; }), axis = document.createElement("select");
  ["x", "y", "z"].forEach(name => axis.add(new Option(name)));
  axis.setAttribute("aria-label", "Axis of the clipping plane");
  axis.addEventListener("change", () => { shown.axis = axis.selectedIndex; loop.touch(); });
  cut.append(axis);
  if (meshes.length > 1) {
    element("divider").hidden = false;
    compare = slider("Compare", 0.5, place);
    addEventListener("resize", () => requestAnimationFrame(() => place(shown.share)));
    place(0.5);
  }
  button("Reset", "r", reset);
  fullScreen();
}

begin(async () => {
  const gl = context({ alpha: false, antialias: true, depth: true, powerPreference: "high-performance" });
  const canvas = element("canvas"), shade = program(gl, VERTEX, FRAGMENT), meshes = [];
  for (let i = 0; i < META.meshes.length; i++) meshes.push(await loadMesh(gl, i));
  controls(meshes);
  fitted(0, Infinity);
  gl.enable(gl.DEPTH_TEST);
  gl.clearColor(0.1, 0.1, 0.11, 1);
  const paint = (mesh, left, right) => {
    if (right <= left) return;
    gl.scissor(left, 0, right - left, canvas.height);
    gl.bindVertexArray(mesh.array);
    gl.uniform1i(shade.uniforms.colored, shown.colored && mesh.meta.colors);
    gl.uniform1i(shade.uniforms.lines, 0);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.triangles);
    gl.enable(gl.POLYGON_OFFSET_FILL);
    gl.polygonOffset(1, 1);
    gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_INT, 0);
    gl.disable(gl.POLYGON_OFFSET_FILL);
    if (!shown.wire) return;
    if (!mesh.wires) wires(gl, mesh);
    gl.uniform1i(shade.uniforms.lines, 1);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.wires);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
    gl.drawElements(gl.LINES, mesh.ends, gl.UNSIGNED_INT, 0);
    gl.disable(gl.BLEND);
  };
  const draw = () => {
    const { view, projection } = matrices(canvas.width / canvas.height), plane = [0, 0, 0, META.size[shown.axis]];
    plane[shown.axis] = 1;
    plane[3] = shown.cut >= 1 ? 1e9 : plane[3] * (2 * shown.cut - 1);  // at the end nothing is cut off
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.disable(gl.SCISSOR_TEST);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.SCISSOR_TEST);
    gl.useProgram(shade.made);
    gl.uniformMatrix4fv(shade.uniforms.view, false, view);
    gl.uniformMatrix4fv(shade.uniforms.projection, false, projection);
    gl.uniform4f(shade.uniforms.plane, ...plane);
    const middle = meshes.length > 1 ? Math.round(shown.share * canvas.width) : canvas.width;
    paint(meshes[0], 0, middle);
    if (meshes.length > 1) paint(meshes[1], middle, canvas.width);
  };
  loop.start(draw, step);
  window.enerf = {
    shown,
    meshes: meshes.map(mesh => ({ vertices: mesh.positions.length / 3, faces: mesh.count / 3 })),
    arrays: i => ({ positions: [...meshes[i].positions], faces: [...meshes[i].faces] }),
    camera: () => ({ ...camera }),
    go(state) { sway.set(false); Object.assign(wanted, state); limit(); Object.assign(camera, wanted); loop.touch(); },
    drawn: () => loop.drawn,
  };
});
