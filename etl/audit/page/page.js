// Draws the charts of the page from its data, and makes it usable by keyboard. All text from the
// lake goes into the document as text, never as markup.
(() => {
  "use strict";
  const root = document.documentElement;
  const one = (id) => document.getElementById(id);

  // Light, dark, or as the system has it.
  const themes = document.querySelectorAll("button[data-theme]");
  const showTheme = (theme) => {
    if (theme === "auto") delete root.dataset.theme;
    else root.dataset.theme = theme;
    for (const button of themes) button.setAttribute("aria-pressed", button.dataset.theme === theme);
  };
  const stored = () => {
    try { return localStorage.getItem("aht-etl-theme"); } catch { return null; }
  };
  for (const button of themes) {
    button.addEventListener("click", () => {
      showTheme(button.dataset.theme);
      try { localStorage.setItem("aht-etl-theme", button.dataset.theme); } catch { /* private */ }
    });
  }
  const wanted = stored();
  if (wanted === "light" || wanted === "dark") showTheme(wanted);
  root.classList.add("js");

  const island = one("page-data");
  if (!island || typeof vegaEmbed === "undefined") {
    if (island) root.classList.remove("js");
    return;
  }
  const { charts, fills, data } = JSON.parse(island.textContent);
  for (const details of document.querySelectorAll("details[open]")) details.open = false;

  // A table that goes on at the right says so.
  const more = (scroll) => scroll.parentElement.classList.toggle(
    "more", scroll.scrollWidth - scroll.clientWidth - scroll.scrollLeft > 1);
  const resized = new ResizeObserver((entries) => entries.forEach((entry) => more(entry.target)));
  for (const scroll of document.querySelectorAll(".scroll")) {
    scroll.addEventListener("scroll", () => more(scroll), { passive: true });
    resized.observe(scroll);
  }

  const HOUR = 3600000;
  const views = {};
  const draw = async (name, chart, values) => {
    const element = one(`chart-${name}`);
    if (!element || !values.length) return null;
    views[name]?.finalize();
    const spec = structuredClone(charts[chart]);
    spec.description = element.dataset.label;
    spec.data.find((set) => set.name === "data").values = values;
    // `ast`: expressions are interpreted, since the page's policy forbids to compile them.
    const options = { ast: true, renderer: "svg", actions: false, logLevel: 1 /* errors */ };
    const result = await vegaEmbed(element, spec, options);
    views[name] = result;
    return result.view;
  };

  // The heat map.
  const short = (value) =>
    value >= 1e6 ? `${(value / 1e6).toFixed(value < 1e7 ? 1 : 0)}M`
    : value >= 1e3 ? `${(value / 1e3).toFixed(value < 1e4 ? 1 : 0)}k`
    : Number.isInteger(value) ? String(value) : value.toFixed(value < 10 ? 1 : 0);
  const exact = (value) => value.toLocaleString("en", { maximumFractionDigits: 2 });
  let metric = "files";
  // What can be shown: the latest days, which may lie in two months, and each month.
  const everyDay = [...data.months].reverse().flatMap((month) => month.days);
  const periods = [{ id: "latest", days: everyDay.slice(-data.latestDays) }, ...data.months];
  let period = periods[0];

  const level = (cell) => {
    if (cell.state !== "held") return cell.state;
    return String(data.thresholds[metric].filter((begin) => cell[metric] >= begin).length);
  };
  // Clocks change: a day may lack an hour of the day, or have it twice.
  const columns = () => [...new Set(period.days.flatMap((day) => day.cells.map((cell) => cell.column)))].sort();
  const signs = { gap: "×", missing: "?", damaged: "!", outside: "·" };
  const cells = () => {
    const all = columns();
    return period.days.flatMap((day) => all.map((column) => {
      const cell = day.cells.find((other) => other.column === column)
        ?? { state: "outside", label: `${day.name}: clocks change, there is no such hour` };
      return {
        hour: column,
        day: day.name,
        level: level(cell),
        label: cell.label,
        mark: cell.state !== "held",
        text: signs[cell.state] ?? short(cell[metric]),
      };
    }));
  };
  const swatch = (name, text) => {
    const item = document.createElement("li");
    const box = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const square = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    box.setAttribute("aria-hidden", "true");
    const size = { x: "1", y: "1", rx: "2", width: "90%", height: "90%" };
    for (const [key, value] of Object.entries(size)) square.setAttribute(key, value);
    square.setAttribute("fill", fills[name][0]);
    square.setAttribute("stroke", fills[name][1]);
    box.append(square);
    item.append(box, text);
    return item;
  };
  const legend = () => {
    const begins = data.thresholds[metric];
    const whole = metric !== "handle";
    const range = (begin, next) => {
      if (next === undefined) return `${exact(begin)} and more`;
      if (!whole) return `${exact(begin)} to ${exact(next)}`;
      return next - begin === 1 ? exact(begin) : `${exact(begin)}–${exact(next - 1)}`;
    };
    const items = begins.map((begin, i) => swatch(String(i + 1), range(begin, begins[i + 1])));
    if (metric !== "files") items.unshift(swatch("0", metric === "quarantined" || !begins.length ? "none" : `under ${exact(begins[0])}`));
    const all = data.months.flatMap((m) => m.days.flatMap((d) => d.cells.map((c) => c.state)));
    if (all.includes("gap")) items.push(swatch("gap", "gap: no files"));
    if (all.includes("missing")) items.push(swatch("missing", "listed files are missing"));
    if (all.includes("damaged")) items.push(swatch("damaged", "damaged part"));
    if (all.includes("outside")) {
      const item = document.createElement("li");
      item.append("· not known");
      items.push(item);
    }
    one("legend").replaceChildren(...items);
  };

  const marks = () => [...one("chart-coverage").querySelectorAll("path[role=graphics-symbol]")];
  let current = 0;
  const choose = (index, focus) => {
    const all = marks();
    if (!all.length) return;
    current = Math.min(Math.max(index, 0), all.length - 1);
    all.forEach((mark, i) => {
      mark.setAttribute("tabindex", i === current ? "0" : "-1");
      mark.classList.toggle("current", focus && i === current);
    });
    one("readout").textContent = all[current].getAttribute("aria-label");
    if (focus) all[current].focus();
  };
  const sideways = { ArrowLeft: -1, ArrowRight: 1 };
  const days = { ArrowUp: -1, ArrowDown: 1, PageUp: -7, PageDown: 7 };
  const heat = one("chart-coverage");
  heat.addEventListener("keydown", (event) => {
    const at = marks().indexOf(event.target);
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const width = columns().length;
    let to = null;
    if (event.key in sideways) to = at + sideways[event.key];
    else if (event.key in days) to = at + days[event.key] * width;
    else if (event.key === "Home") to = at - (at % width);
    else if (event.key === "End") to = at - (at % width) + width - 1;
    if (to === null) return;
    event.preventDefault();
    if (to >= 0 && to < marks().length) choose(to, true);
  });
  for (const kind of ["pointerover", "click", "focusin"]) {
    heat.addEventListener(kind, (event) => {
      const at = marks().indexOf(event.target);
      if (at < 0) return;
      if (kind === "pointerover") one("readout").textContent = event.target.getAttribute("aria-label");
      else choose(at, false);
    });
  }
  const drawHeat = async () => {
    legend();
    await draw("coverage", "coverage", cells());
    const all = marks();
    const held = cells().findIndex((cell) => cell.level !== "outside");
    all.forEach((mark, i) => mark.setAttribute("tabindex", i === Math.max(held, 0) ? "0" : "-1"));
  };
  for (const button of document.querySelectorAll("button[data-metric]")) {
    button.addEventListener("click", async () => {
      metric = button.dataset.metric;
      for (const other of document.querySelectorAll("button[data-metric]")) {
        other.setAttribute("aria-pressed", other === button);
      }
      await drawHeat();
    });
  }

  // What else hangs on the days that are shown.
  const timeline = () => period.days.flatMap((day) => day.cells.map((cell, number) => {
    // A day has its width, however many hours it has.
    const width = 24 * HOUR / day.cells.length;
    const from = Date.parse(`${day.date}T${day.begins}:00Z`) + number * width;
    return { from, to: from + width, rows: cell.rows, handle: cell.handle, label: cell.label,
             gap: cell.state === "gap" || cell.state === "missing", state: cell.state };
  })).filter((cell) => cell.state !== "outside");
  const drawPeriod = async () => {
    const shown = new Set(period.days.map((day) => day.date.slice(0, 7)));
    for (const section of document.querySelectorAll(".month[data-month]")) {
      section.hidden = !shown.has(section.dataset.month);
    }
    const at = periods.indexOf(period);
    one("month").value = period.id;
    one("newer").disabled = at === 0;
    one("older").disabled = at === periods.length - 1;
    await drawHeat();
    const hours = timeline();
    await Promise.all([draw("rows", "rows", hours), draw("handle", "handle", hours)]);
  };
  const show = (at) => { period = periods[at]; return drawPeriod(); };
  one("month").addEventListener("change", (event) => show(event.target.selectedIndex));
  one("older").addEventListener("click", () => show(periods.indexOf(period) + 1));
  one("newer").addEventListener("click", () => show(periods.indexOf(period) - 1));
  if (data.months.length < 2) document.querySelector(".months").hidden = true;

  const whole = () => data.days.map((day) => {
    const from = Date.parse(`${day.date}T00:00:00Z`);
    return { ...day, from, to: from + 24 * HOUR };
  });
  const drawAll = async () => {
    await drawPeriod();
    await draw("segments", "segments", whole());
    await draw("mean", "mean", whole());
    await draw("starts", "reasons", data.starts);
    await draw("ends", "reasons", data.ends);
    await draw("lateness", "counts", data.lateness);
    await draw("quarantine", "counts", data.quarantine);
    root.dataset.drawn = "true";
  };
  drawAll().catch((error) => {
    // Without the charts there are still the tables.
    console.error(error);
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
