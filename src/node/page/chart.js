// The last minutes, as stacked steps: each is the average between two answers, no more than what is known. What it shows grows
// with what it has seen, up to five minutes.

const CHART_MS = 300000;
const SPANS = [  // seconds before now that are named
  {ms: 60000, marks: [60, 45, 30, 15, 0]},
  {ms: 120000, marks: [120, 90, 60, 30, 0]},
  {ms: CHART_MS, marks: [300, 240, 180, 120, 60, 0]},
];
const NARROW = 460;
const SVG = 'http://www.w3.org/2000/svg';

function svgElement(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

// A round step so that at most five of them reach the top; round in the unit that it is shown in.
function scaleOf(top) {
  let unit = 1;
  while (top / unit >= 999.5) unit *= 1024;
  const rough = Math.max(top, 1) / unit / 4.5;
  const ten = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].find(each => each * ten >= rough) * ten * unit;
  return {step, top: Math.ceil(Math.max(top, 1) / step) * step};
}

class Chart {
  // onMoment: the point under the pointer or the cursor keys; null: none.
  constructor(host, onMoment) {
    this.host = host;
    this.onMoment = onMoment;
    this.points = [];
    this.now = 0;
    this.moment = null;  // milliseconds before now
    this.svg = svgElement('svg', {'aria-hidden': 'true', focusable: 'false'});
    this.grid = svgElement('g', {class: 'grid'});
    this.areas = TIERS.map(tier => svgElement('path', {class: 'area ' + tier}));
    this.cursor = svgElement('line', {class: 'cursor', visibility: 'hidden'});
    this.empty = svgElement('text', {class: 'none', 'text-anchor': 'middle'});
    this.svg.append(this.grid, ...this.areas, this.cursor, this.empty);
    host.append(this.svg);
    new ResizeObserver(() => this.draw()).observe(host);
    host.addEventListener('pointermove', event => this.point(event.clientX));
    host.addEventListener('pointerleave', () => this.moveTo(null));
    host.addEventListener('blur', () => this.moveTo(null));
    host.addEventListener('focus', () => this.tell());
    host.addEventListener('keydown', event => this.onKey(event));
  }

  add(point) {
    this.points.push(point);
    while (this.points.length > 0 && this.points[0].at < point.at - CHART_MS) this.points.shift();
    this.now = point.at;
  }

  onKey(event) {
    const moves = {ArrowLeft: 5000, ArrowRight: -5000, Home: CHART_MS, End: -CHART_MS};
    if (event.key === 'Escape') return this.moveTo(null);
    if (!(event.key in moves)) return;
    event.preventDefault();
    const first = this.points.length > 0 ? this.now - this.points[0].at : 0;
    this.moveTo(Math.min(Math.max((this.moment || 0) + moves[event.key], 0), first));
    this.tell();
  }

  // For who does not see it; when asked, not each second.
  tell() {
    const point = this.current() || this.points[this.points.length - 1];
    const seconds = Math.round((this.moment || 0) / 1000);
    const values = point ? TIERS.map((tier, i) => `${tier} ${point.rates[i] < 0.5 ? 'none' : rateText(point.rates[i])}`) : ['not known'];
    this.host.setAttribute('aria-valuenow', -seconds);
    this.host.setAttribute('aria-valuetext', `${seconds === 0 ? 'now' : seconds + ' seconds ago'}: ${values.join(', ')}`);
  }

  point(clientX) {
    const box = this.svg.getBoundingClientRect();
    const share = (clientX - box.left) / Math.max(box.width, 1);
    this.moveTo(Math.min(Math.max(1 - share, 0), 1) * this.shown().ms);
  }

  moveTo(moment) {
    this.moment = moment;
    this.draw();
  }

  current() {
    if (this.moment === null) return null;
    const at = this.now - this.moment;
    return this.points.find(point => point.at >= at && point.at - point.ms <= at) || null;
  }

  draw() {
    const width = Math.max(this.host.clientWidth, 100);
    const height = Math.max(this.host.clientHeight, 60);
    const bottom = height - 22;
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    const shown = this.shown();
    const visible = this.points.filter(point => point.at > this.now - shown.ms);
    const top = Math.max(0, ...visible.map(point => sum(point.rates)));
    const scale = scaleOf(top);
    const x = at => Math.round((1 - (this.now - at) / shown.ms) * width * 10) / 10;
    const y = value => Math.round((bottom - value / scale.top * (bottom - 16)) * 10) / 10;
    this.drawGrid(width, bottom, top > 0 ? scale : null, y, shown);
    this.areas.forEach((area, tier) => area.setAttribute('d', this.path(visible, tier, x, y)));
    this.empty.textContent = top > 0 ? '' : 'no read in the last ' + durationText(Math.max(this.span(), 1000));
    this.empty.setAttribute('x', width / 2);
    this.empty.setAttribute('y', (bottom + 16) / 2);
    const current = this.current();
    const at = x(this.now - (this.moment || 0));
    for (const [key, value] of Object.entries({x1: at, x2: at, y1: 8, y2: bottom})) this.cursor.setAttribute(key, value);
    this.cursor.setAttribute('visibility', this.moment === null ? 'hidden' : 'visible');
    this.onMoment(current, this.moment);
  }

  // How long it has looked, at most what it shows.
  span() {
    if (this.points.length === 0) return 0;
    return Math.min(CHART_MS, this.now - this.points[0].at + this.points[0].ms);
  }

  shown() { return SPANS.find(each => each.ms >= this.span()); }

  // One closed shape for each run of points that follow each other.
  path(points, tier, x, y) {
    let d = '';
    let back = '';
    let end = null;
    for (const point of points) {
      const below = sum(point.rates.slice(0, tier));
      const from = x(Math.max(point.at - point.ms, this.now - this.shown().ms));
      const to = x(point.at);
      if (end === null || Math.abs(end - from) > 1) {
        d += back + (back ? 'Z' : '') + `M${from} ${y(below)}`;
        back = '';
      }
      d += `L${from} ${y(below + point.rates[tier])}H${to}`;
      back = `L${to} ${y(below)}H${from}` + back;
      end = to;
    }
    return d + back + (back ? 'Z' : '');
  }

  drawGrid(width, bottom, scale, y, shown) {
    const parts = [];
    for (let value = 0; scale && value <= scale.top; value += scale.step) {
      parts.push(svgElement('line', {x1: 0, x2: width, y1: y(value), y2: y(value)}));
      if (value === 0) continue;
      const text = svgElement('text', {x: 0, y: y(value) - 4});
      const [digits, unit] = bytesParts(value);
      text.textContent = `${Number(digits)}\u00a0${unit}/s`;
      parts.push(text);
    }
    if (!scale) parts.push(svgElement('line', {x1: 0, x2: width, y1: bottom, y2: bottom}));
    shown.marks.forEach((seconds, i) => {
      const at = width * (1 - seconds * 1000 / shown.ms);
      parts.push(svgElement('line', {x1: at, x2: at, y1: bottom, y2: bottom + 4}));
      if (width < NARROW && i % 2 === 1 && seconds > 0) return;
      const anchor = seconds === 0 ? 'end' : i === 0 ? 'start' : 'middle';
      const text = svgElement('text', {x: at, y: bottom + 16, 'text-anchor': anchor});
      text.textContent = seconds === 0 ? 'now' : '\u2212' + (seconds % 60 === 0 ? seconds / 60 + ' min' : seconds + ' s');
      parts.push(text);
    });
    this.grid.replaceChildren(...parts);
  }
}
