"use strict";
// The head is parsed at once; a query's line of details when it is looked at, so that large pages open fast.
const head = JSON.parse(document.getElementById("head").textContent);
const details = document.getElementById("details").textContent.split("\n");
const byId = (id) => document.getElementById(id);
const [list, rows, detail] = ["list", "rows", "detail"].map(byId);
const ROW_PX = 80, [BEFORE, AFTER] = head.roles.map((role) => `${role}: `);
let shown = [], active = -1;

function make(tag, classes, text) {
  const made = document.createElement(tag);
  made.className = classes;
  if (text !== undefined) made.textContent = text;
  return made;
}

const chosen = () => ({ measure: byId("measure").selectedIndex, before: +byId("before").value, after: +byId("after").value });
const alone = head.systems.length < 2;
const value = (system, query, measure) => head.values[system][measure][query];
const signed = (number) => (number > 0 ? "+" : number < 0 ? "−" : "±") + Math.abs(number).toFixed(4);
const tone = (number) => (number > 0 ? "rose" : number < 0 ? "fell" : "kept");

function changeOf(query, { measure, before, after }) {
  return alone ? 0 : +(value(after, query, measure) - value(before, query, measure)).toFixed(8);
}

// The details are searched as they stand, without parsing: what is typed is written as JSON has it.
let lowered = null;
function matches(query, words, raw) {
  if (!words) return true;
  if (`${head.ids[query]} ${head.queries[query]}`.toLowerCase().includes(words)) return true;
  lowered ??= details.map((line) => line.toLowerCase());
  return lowered[query].includes(raw);
}

const KINDS = {
  all: () => true, moved: (change) => change !== 0, better: (change) => change > 0,
  worse: (change) => change < 0, same: (change) => change === 0,
};
const ORDERS = {
  move: (one, other) => Math.abs(other.change) - Math.abs(one.change),
  worst: (one, other) => one.change - other.change,
  best: (one, other) => other.change - one.change,
  low: (one, other) => one.value - other.value,
  id: () => 0,  // the queries come in the order of their ids
};

function choose() {
  const options = chosen(), words = byId("filter").value.trim().toLowerCase();
  const raw = JSON.stringify(words).slice(1, -1).replaceAll("<", "\\u003c");
  const found = head.ids.map((_, query) => (
    { query, change: changeOf(query, options), value: value(alone ? 0 : options.after, query, options.measure) }
  )).filter((each) => matches(each.query, words, raw));
  shown = found.filter((each) => KINDS[byId("kind").value](each.change)).sort(ORDERS[byId("order").value]);
  const count = (kind) => found.filter((each) => KINDS[kind](each.change)).length.toLocaleString("en");
  byId("count").textContent = `${shown.length.toLocaleString("en")} of ${head.ids.length.toLocaleString("en")} queries`
    + (alone ? "" : `: ${count("better")} better, ${count("same")} same, ${count("worse")} worse`);
  rows.style.height = `${shown.length * ROW_PX}px`;
  list.scrollTop = 0;
  activate(shown.length ? 0 : -1);
}

function activate(place) {
  active = place;
  if (place >= 0) {
    const top = place * ROW_PX;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW_PX > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW_PX - list.clientHeight;
    list.setAttribute("aria-activedescendant", `row-${place}`);
  } else list.removeAttribute("aria-activedescendant");
  drawRows();
  drawDetail();
}

// Only the rows in sight are elements.
function drawRows() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW_PX) - 3);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW_PX) + 3);
  const made = [];
  for (let place = first; place < last; place++) made.push(rowOf(place));
  if (active >= last || (active >= 0 && active < first)) made.push(rowOf(active));
  rows.replaceChildren(...made);
}

function rowOf(place) {
  const { query, change, value: after } = shown[place], options = chosen();
  const row = make("div", "row");
  row.id = `row-${place}`;
  row.style.top = `${place * ROW_PX}px`;
  for (const [name, text] of [["role", "option"], ["aria-selected", place === active], ["aria-setsize", shown.length],
    ["aria-posinset", place + 1]]) row.setAttribute(name, text);
  const text = make("span", "query", head.queries[query] || head.ids[query]);
  text.dir = "auto";
  const by = make("span", `by ${alone ? "" : tone(change)}`, alone ? after.toFixed(4) : signed(change));
  const id = make("small", "", head.ids[query]);
  id.dir = "auto";
  row.append(text, by, id);
  if (!alone) row.append(make("small", "", `${value(options.before, query, options.measure).toFixed(3)} → ${after.toFixed(3)}`));
  row.addEventListener("click", () => activate(place));
  return row;
}

function drawDetail() {
  detail.replaceChildren();
  if (active < 0) {
    detail.append(make("p", "hint", "No query is like that: change the filter or what is shown."));
    return;
  }
  const { query } = shown[active], options = chosen();
  const { relevant, passages } = JSON.parse(details[query]);
  const title = make("h2", "", head.queries[query] || head.ids[query]);
  title.dir = "auto";
  const columns = make("div", "columns");
  const pair = alone ? [[0, 0, ""]] : [[options.before, options.after, BEFORE], [options.after, options.before, AFTER]];
  columns.append(...pair.map(([system, other, role]) => columnOf(system, other, role, passages, relevant)));
  detail.append(title, make("p", "hint", `Query ${head.ids[query]}, ${relevant} relevant`), valuesOf(query, options), columns);
  for (const text of detail.querySelectorAll(".text")) foldable(text);
}

function valuesOf(query, { before, after }) {
  const line = make("p", "values");
  head.measures.forEach((name, measure) => {
    const now = value(alone ? 0 : after, query, measure), each = make("span", "", `${name} `);
    if (alone) each.append(make("b", "", now.toFixed(4)));
    else {
      const change = changeOf(query, { measure, before, after });
      each.append(`${value(before, query, measure).toFixed(4)} → ${now.toFixed(4)} `, make("b", tone(change), signed(change)));
    }
    line.append(each);
  });
  return line;
}

function columnOf(system, other, role, passages, relevant) {
  const column = make("div", ""), entries = make("ol", "");
  const ranked = passages.map((each, number) => ({ each, number, place: each[3][system] }))
    .filter(({ place }) => place && place[0] <= head.depth)
    .sort((one, next) => one.place[0] - next.place[0]);
  const hits = ranked.filter(({ each }) => each[2] > 0).length;
  column.append(make("h3", "", `${role}${head.systems[system]}`));
  column.append(make("p", "hint", ranked.length ? `${hits} of ${relevant} relevant in these ${ranked.length}` : "This run has no passage for the query."));
  entries.setAttribute("aria-label", `${role}${head.systems[system]}`);
  entries.append(...ranked.map((entry) => passageOf(entry, other, role)));
  column.append(entries);
  return column;
}

// Its colour tells whether the move helped: a relevant passage up, another one down.
function moveOf(place, there, role, relevance) {
  if (!role) return ["", ""];
  const isBefore = role === BEFORE, helps = relevance === null ? 0 : relevance > 0 ? 1 : -1;
  if (!there) return [tone(isBefore ? -helps : helps), isBefore ? "gone" : "new"];
  const by = isBefore ? place[0] - there[0] : there[0] - place[0];
  if (by === 0) return ["kept", "="];
  return [tone(by * helps), `${by > 0 ? "▲ up" : "▼ down"} ${Math.abs(by)}, ${isBefore ? "to" : "from"} ${there[0]}`];
}

function judgmentOf(relevance) {
  if (relevance === null) return ["unjudged", "kept", "unjudged"];
  return relevance > 0 ? ["relevant", "rose", `relevant (${relevance})`] : ["", "kept", "not relevant"];
}

function passageOf({ each: [id, text, relevance, places], number, place }, other, role) {
  const [kind, colour, judgment] = judgmentOf(relevance);
  const [moved, move] = moveOf(place, places[other], role, relevance);
  const entry = make("li", `passage ${kind}`), line = make("div", "facts-line");
  entry.dataset.number = number;
  const name = make("span", "id", `id ${id}`);
  name.dir = "auto";
  line.append(make("b", "", place[0]), make("span", moved, move), make("span", `judged ${colour}`, judgment),
    make("span", "", `score ${place[1]}`), name);
  entry.append(line);
  if (text !== null) {
    const shownText = make("p", "text", text);
    shownText.dir = "auto";
    entry.append(shownText);
  }
  for (const [event, on] of [["mouseenter", true], ["mouseleave", false]])
    entry.addEventListener(event, () => detail.querySelectorAll(`[data-number="${number}"]`)
      .forEach((twin) => twin.classList.toggle("twin", on)));
  return entry;
}

function foldable(text) {
  if (text.scrollHeight <= text.clientHeight + 2) return;
  const button = make("button", "more-text", "more");
  button.type = "button";
  button.addEventListener("click", () => {
    button.textContent = text.classList.toggle("open") ? "less" : "more";
    button.setAttribute("aria-expanded", text.classList.contains("open"));
  });
  button.setAttribute("aria-expanded", false);
  text.after(button);
}

list.addEventListener("scroll", drawRows);
list.addEventListener("keydown", (event) => {
  const page = Math.max(1, Math.floor(list.clientHeight / ROW_PX) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -shown.length, End: shown.length };
  if (event.key === "Enter") detail.focus();
  if (!(event.key in steps) || !shown.length) return;
  event.preventDefault();
  activate(Math.min(shown.length - 1, Math.max(0, active + steps[event.key])));
});
let waiting = 0;
byId("filter").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(choose, 120);
});
for (const id of ["measure", "before", "after", "kind", "order"]) byId(id).addEventListener("change", choose);
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("resize", drawRows);
choose();
