"use strict";
// Draws the data of the page. Text becomes text nodes and attributes, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const LEFT = 132, RIGHT = 16, TOP = 34, GAP = 6;
const HEIGHTS = { websocket: 50, video: 62, buffers: 68, session: 58, human: 42, user: 78 };
const duration = Math.max(data.duration, 0.001);
const pad = duration * 0.01;
let from = -pad, to = duration + pad;

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const seconds = (value) =>
  value >= 60
    ? `${Math.floor(value / 60)}:${(value % 60).toFixed(1).padStart(4, "0")}`
    : value >= 1 ? `${value.toFixed(2)} s` : `${Math.round(value * 1000)} ms`;

// ---- what stands above and below

function figure(value, name) {
  const card = document.createElement("div");
  card.className = "figure";
  const strong = document.createElement("b");
  strong.textContent = value;
  const label = document.createElement("span");
  label.textContent = name;
  card.append(strong, label);
  byId("figures").append(card);
}

function above() {
  document.title = `${data.title} · NavTalk session`;
  document.querySelector("h1").textContent = data.title;
  const versions = Object.entries(data.versions).map(([name, version]) => `${name} ${version}`);
  const omitted = data.omitted.length ? [`without its ${data.omitted.join(" and ")}`] : [];
  const left = data.left_out ? [`${data.left_out} items are not drawn`] : [];
  byId("about").textContent = [data.started, ...versions, ...omitted, ...left].join(" · ");
  const lane = (name) => data.lanes.find((one) => one.name === name).items;
  const usable = lane("session").find((item) => item.label === "Usable");
  const latencies = data.turns.map((turn) => turn.latency).sort((a, b) => a - b);
  const messages = lane("websocket").filter((item) => item.kind === "received" || item.kind === "sent");
  const trouble = data.lanes.flatMap((one) => one.items).filter((item) => item.tone === "bad");
  figure(seconds(data.duration), "traced");
  if (usable) figure(seconds(usable.t), "until usable");
  figure(String(data.turns.length), data.turns.length === 1 ? "answer" : "answers");
  if (latencies.length) {
    figure(seconds(latencies[Math.floor((latencies.length - 1) / 2)]), "median first words");
  }
  figure(String(messages.length), "messages");
  figure(String(trouble.length), trouble.length === 1 ? "failure" : "failures");
}

function below() {
  if (!data.turns.length) return;
  byId("answers").hidden = false;
  for (const turn of data.turns) {
    const row = document.createElement("tr");
    const cells = [seconds(turn.t), seconds(turn.latency), turn.user || (turn.typed ? "" : "(spoken)"), turn.human];
    for (const text of cells) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    if (turn.end) {
      const end = document.createElement("span");
      end.className = "end";
      end.textContent = ` ${turn.end}`;
      row.lastChild.append(end);
    }
    byId("turns").append(row);
  }
}

// ---- the chart

const chart = byId("chart");
const svg = element("svg", { role: "img", "aria-label": "Timeline of the session" });
chart.append(svg);

function hinted(shape, item) {
  const until = item.end === undefined ? "" : ` to ${seconds(item.end)}, ${seconds(item.end - item.t)} long`;
  shape.hint = [item.label, `${seconds(item.t)}${until}`, item.detail === item.label ? "" : item.detail];
  shape.setAttribute("data-hint", "");
  return shape;
}

function step(span, width) {
  const wanted = span / Math.max(width / 110, 2);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((one) => one * power).find((one) => one >= wanted);
}

function fitted(text, width) {
  const most = Math.floor(width / 6.6);
  return text.length <= most ? text : most > 3 ? `${text.slice(0, most - 1)}…` : "";
}

function draw() {
  const width = Math.max(chart.clientWidth, 480);
  const x = (t) => LEFT + ((t - from) / (to - from)) * (width - LEFT - RIGHT);
  const shapes = [];
  const marks = [];
  let y = TOP;
  const tops = {};
  for (const [number, lane] of data.lanes.entries()) {
    const height = HEIGHTS[lane.name] ?? 36;
    tops[lane.name] = [y, height];
    if (number % 2 === 0) shapes.push(element("rect", { class: "stripe", x: 0, y, width, height }));
    shapes.push(element("line", { class: "rule", x1: 0, x2: width, y1: y + height, y2: y + height }));
    marks.push(element("text", { class: "title", x: 10, y: y + 21 }, lane.title));
    const area = element("svg", { x: LEFT, y, width: width - LEFT - RIGHT, height, viewBox: `${LEFT} ${y} ${width - LEFT - RIGHT} ${height}` });
    drawLane(lane, y, height, x, area, marks, width);
    shapes.push(area);
    y += height;
  }
  const grid = [];
  const every = step(to - from, width - LEFT - RIGHT);
  const digits = Math.max(0, -Math.floor(Math.log10(every) + 1e-9));
  for (let t = Math.ceil(Math.max(from, 0) / every) * every; t <= Math.min(to, duration + pad); t += every) {
    grid.push(element("line", { class: "grid", x1: x(t), x2: x(t), y1: TOP - 6, y2: y }));
    grid.push(element("text", { class: "axis", x: x(t), y: TOP - 14, "text-anchor": "middle" }, `${t.toFixed(digits)} s`));
  }
  svg.replaceChildren(...stripesFirst(shapes, grid), ...latencies(x, tops, width), ...marks);
  svg.setAttribute("viewBox", `0 0 ${width} ${y + GAP}`);
  svg.setAttribute("height", y + GAP);
}

function stripesFirst(shapes, grid) {
  const back = shapes.filter((shape) => shape.getAttribute("class") === "stripe");
  return [...back, ...grid, ...shapes.filter((shape) => !back.includes(shape))];
}

function drawLane(lane, y, height, x, area, marks, width) {
  const middle = y + height / 2;
  const spans = lane.items.filter((item) => item.kind === "span");
  const rows = lane.name === "session" || lane.name === "user" ? 2 : 1;
  const thick = rows === 2 ? 18 : Math.min(height - 14, 24);
  for (const item of spans) {
    const left = x(item.t), right = x(item.end ?? duration);
    const wide = Math.max(right - left, 3);
    const top = lane.name === "websocket" ? middle - 2 : rows === 2 ? y + 7 : middle - thick / 2;
    const tall = lane.name === "websocket" ? 4 : item.tone === "faint" ? 6 : thick;
    area.append(hinted(element("rect", { class: `span ${item.tone}`, x: left, y: item.tone === "faint" ? y + 30 : top, width: wide, height: tall, rx: tall > 8 ? 5 : 2 }), item));
    const shown = Math.max(left, LEFT);
    const label = tall < thick ? "" : fitted(item.label, Math.min(right, width - RIGHT) - shown - 14);
    if (label) {
      const text = element("text", { x: shown + 7, y: top + tall / 2 + 4, "pointer-events": "none" }, label);
      area.append(text);
    }
  }
  const points = lane.items.filter((item) => item.kind === "point");
  for (const item of lane.items) {
    if (item.kind === "received" || item.kind === "sent") {
      const reach = lane.name === "websocket" ? height / 2 - 8 : height / 2 - 7;
      const way = item.kind === "sent" ? -1 : 1;
      area.append(hinted(element("line", { class: `tick ${item.kind}`, x1: x(item.t), x2: x(item.t), y1: middle + way * 3, y2: middle + way * reach }), item));
    } else if (item.kind === "point") {
      const center = lane.name === "user" ? y + height - 24 : rows === 2 ? y + height - 14 : lane.name === "video" ? y + 10 : middle;
      area.append(hinted(element("circle", { class: `point ${item.tone}`, cx: x(item.t), cy: center, r: 5 }), item));
      const room = rows === 2 || lane.name === "signaling";
      const next = points[points.indexOf(item) + 1];
      const label = fitted(item.label, 190);
      const size = 8 + label.length * 6;
      const atEnd = x(item.t) + size > width - RIGHT;
      // Of points that stand close together the last one has room for its name.
      if (room && (next === undefined || x(next.t) - x(item.t) > size)) {
        area.append(element("text", { class: "legend", x: x(item.t) + (atEnd ? -8 : 8), y: center + 4, "text-anchor": atEnd ? "end" : "start", "pointer-events": "none" }, label));
      }
    }
  }
  series(lane, y, height, x, area, marks);
}

function series(lane, y, height, x, area, marks) {
  const values = lane.items.filter((item) => item.kind === "value");
  const names = [...new Set(values.flatMap((item) => Object.keys(item.values)))];
  for (const [number, name] of names.entries()) {
    const points = values.filter((item) => name in item.values);
    const top = Math.max(...points.map((item) => item.values[name]));
    const most = Math.max(1, ...points.map((item) => item.values[name]));
    const place = (item) => [x(item.t), y + height - 6 - (item.values[name] / most) * (height - 18)];
    const line = points.map(place).map(([left, top]) => `${left.toFixed(1)},${top.toFixed(1)}`).join(" ");
    const [first, last] = [points[0], points.at(-1)];
    if (names.length === 1) {
      area.append(element("polygon", { class: `area s${number}`, points: `${x(first.t)},${y + height - 6} ${line} ${x(last.t)},${y + height - 6}` }));
    }
    area.append(element("polyline", { class: `series s${number}`, points: line }));
    for (const item of points) {
      const [cx, cy] = place(item);
      const dot = element("circle", { class: `key s${number}`, cx, cy, r: 2.5 });
      const value = Number.isInteger(item.values[name]) ? item.values[name] : item.values[name].toFixed(1);
      area.append(hinted(dot, { t: item.t, label: `${name}: ${value}`, detail: "" }));
    }
    const shown = lane.name === "video" ? `≤ ${top.toFixed(0)} a second` : `${name} ≤ ${top.toFixed(0)}`;
    marks.push(element("text", { class: "legend", x: 22, y: y + 35 + number * 13 }, shown));
    marks.push(element("circle", { class: `key s${number}`, cx: 14, cy: y + 31 + number * 13, r: 3 }));
  }
}

function latencies(x, tops, width) {
  const [userTop] = tops.user;
  const [humanTop, humanHeight] = tops.human;
  const shapes = [];
  const area = element("svg", { x: LEFT, y: userTop, width: width - LEFT - RIGHT, height: humanTop + humanHeight - userTop, viewBox: `${LEFT} ${userTop} ${width - LEFT - RIGHT} ${humanTop + humanHeight - userTop}` });
  for (const turn of data.turns) {
    const [left, right] = [x(turn.t), x(turn.first)];
    area.append(element("rect", { class: "wait", x: left, y: userTop, width: Math.max(right - left, 1), height: humanTop + humanHeight - userTop }));
    const middle = humanTop - 1;
    area.append(hinted(element("path", { class: "latency", d: `M${left},${middle - 4}V${middle + 4}M${left},${middle}H${right}M${right},${middle - 4}V${middle + 4}` }), { t: turn.t, end: turn.first, label: `first words after ${seconds(turn.latency)}`, detail: turn.user }));
    area.append(element("text", { class: "legend latency-text", x: right + 5, y: middle + 1, "pointer-events": "none" }, seconds(turn.latency)));
  }
  shapes.push(area);
  return shapes;
}

// ---- moving about

const hint = byId("hint");
svg.addEventListener("mousemove", (event) => {
  const told = event.target.hint;
  hint.hidden = told === undefined;
  if (told === undefined) return;
  const [label, when, detail] = told;
  const [strong, faint] = [document.createElement("b"), document.createElement("i")];
  strong.textContent = label.slice(0, 300);
  faint.textContent = when;
  hint.replaceChildren(strong, faint, detail.slice(0, 900));
  const right = event.clientX + 14 + hint.offsetWidth > innerWidth;
  hint.style.left = `${right ? event.clientX - hint.offsetWidth - 14 : event.clientX + 14}px`;
  hint.style.top = `${Math.min(event.clientY + 14, innerHeight - hint.offsetHeight - 8)}px`;
});
svg.addEventListener("mouseleave", () => { hint.hidden = true; });

function move(newFrom, newTo) {
  const span = Math.min(Math.max(newTo - newFrom, 0.005), duration + 2 * pad);
  from = Math.min(Math.max(newFrom, -pad), duration + pad - span);
  to = from + span;
  draw();
}
const at = (event) => {
  const box = svg.getBoundingClientRect();
  return from + ((event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT)) * (to - from);
};
svg.addEventListener("wheel", (event) => {
  event.preventDefault();
  const here = at(event);
  const factor = Math.exp(event.deltaY * 0.0015);
  move(here - (here - from) * factor, here + (to - here) * factor);
}, { passive: false });
svg.addEventListener("pointerdown", (event) => {
  const start = at(event), box = svg.getBoundingClientRect();
  const [first, last] = [from, to];
  const perPixel = (to - from) / (box.width - LEFT - RIGHT);
  const drag = (moved) => {
    const by = (moved.clientX - event.clientX) * perPixel;
    move(first - by, last - by);
  };
  const drop = () => {
    removeEventListener("pointermove", drag);
    removeEventListener("pointerup", drop);
    svg.classList.remove("moving");
  };
  if (start === undefined) return;
  svg.classList.add("moving");
  addEventListener("pointermove", drag);
  addEventListener("pointerup", drop);
});
byId("whole").addEventListener("click", () => move(-pad, duration + pad));
addEventListener("resize", draw);

above();
below();
draw();
