// The chart with axes of one's choice: what is drawn depends on the chosen cost and quality.
const NEAR = { x: 0.06, y: 0.08 }; // two texts are too near below these shares of the dots' range

function setUpAxes(section, chart) {
  Object.assign(chart.state, { x: chart.choices.x[0][0], y: chart.choices.y[0][0], log: { x: false, y: false } });
  for (const select of all("select", section)) {
    select.addEventListener("change", () => {
      chart.state[select.dataset.axis] = select.value;
      refresh(section);
    });
  }
  for (const box of all("input[data-log]", section)) {
    box.addEventListener("change", () => {
      chart.state.log[box.dataset.log] = box.checked;
      refresh(section);
    });
  }
}

// The drawing with the chosen fields as `x` and `y`; rows without one of them are left out.
function withAxes(chart, panel, drawing) {
  const { x, y, log } = chart.state;
  const onAxes = (rows) => {
    const placed = rows.map((row) => ({ ...row, x: row[x], y: row[y] }));
    const isDrawn = (value, isLog) => value !== undefined && (!isLog || value > 0);
    return placed.filter((row) => isDrawn(row.x, log.x) && isDrawn(row.y, log.y));
  };
  const [curves, runs] = [onAxes(drawing.datasets.curves), onAxes(drawing.datasets.runs)];
  const isHigherBetter = panel.axes[y].better === "higher";
  setTexts(curves);
  const datasets = { curves, runs, front: frontOf(curves, isHigherBetter) };
  const titles = { x: panel.axes[x]?.title ?? x, y: panel.axes[y].title };
  const hasInterval = y === "value";
  const layers = drawing.spec.layer.filter((layer) => hasInterval || !layer.encoding.y2);
  const distinct = (axis) => new Set([...curves, ...runs].map((row) => row[axis])).size;
  const isOne = { x: distinct("x") === 1, y: distinct("y") === 1 };
  const layer = layers.map((one) => ({ ...one, encoding: withTitles(one.encoding, titles, log, isOne) }));
  return { ...drawing, spec: { ...drawing.spec, layer }, datasets };
}

// An axis of one value has one tick, whose label would be rounded to a whole number.
function withTitles(encoding, titles, log, isOne) {
  const changed = { ...encoding };
  for (const axis of ["x", "y"]) {
    const scale = log[axis] ? { type: "log", nice: false, padding: 16 } : { ...encoding[axis].scale, zero: false };
    const labels = log[axis] ? { axis: { format: "~g", tickCount: 4 } } : isOne[axis] ? { axis: { format: ".4~g" } } : {};
    changed[axis] = { ...encoding[axis], title: titles[axis], scale, ...labels };
  }
  if (encoding.tooltip) {
    changed.tooltip = encoding.tooltip.map((row) => ({ ...row, title: titles[row.field] ?? row.title }));
  }
  return changed;
}

// The means that no other mean beats on both axes, from the cheapest on.
function frontOf(curves, isHigherBetter) {
  const front = [];
  const sign = isHigherBetter ? 1 : -1;
  const byCost = [...curves].sort((a, b) => a.x - b.x || sign * (b.y - a.y));
  for (const { x, y } of byCost) {
    if (!front.length || sign * y > sign * front.at(-1).y) front.push({ x, y });
  }
  return front;
}

// The rank beside each dot, or nothing if another text is too near.
function setTexts(curves) {
  const rangeOf = (axis) => {
    const values = curves.map((row) => row[axis]);
    return Math.max(Math.max(...values) - Math.min(...values), 1e-12);
  };
  const [width, height] = [rangeOf("x"), rangeOf("y")];
  const placed = [];
  for (const row of curves) {
    const [x, y] = [row.x / width, row.y / height];
    const isFree = placed.every(([left, top]) => Math.abs(x - left) > NEAR.x || Math.abs(y - top) > NEAR.y);
    row.text = row.rank > 0 && isFree ? `r=${row.rank}` : "";
    if (row.text) placed.push([x, y]);
  }
}
