// From numbers to the document. Whatever comes from the node is set as text, never as markup: names of files are written by
// others. Elements are kept from one second to the next, so that a selection, the focus and a reader's place stay.

const byId = id => document.getElementById(id);

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}
function create(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}
// Digits large and the unit small.
function setFigure(element, [digits, unit]) {
  if (element.children.length === 0) element.append(create('b'), create('small'));
  setText(element.children[0], digits);
  setText(element.children[1], unit && ' ' + unit);
}

// As many children as items, made once, filled each time.
function fillList(host, items, make, fill) {
  while (host.children.length > items.length) host.lastElementChild.remove();
  while (host.children.length < items.length) host.append(make());
  items.forEach((item, i) => fill(host.children[i], item));
}

// columns: {title, fill(cell, row), kind}: 'name' grows, 'text' is text, others are numbers; a hidden one has nothing to say.
function fillTable(table, columns, rows) {
  if (!table.tHead) {
    table.createTHead().insertRow();
    table.createTBody();
    table.setAttribute('role', 'table');
    for (const column of columns) {
      const cell = create('th', column.kind || 'number', column.title);
      cell.scope = 'col';
      table.tHead.rows[0].append(cell);
    }
  }
  const shown = columns.map(column => !column.optional || rows.some(column.optional));
  shown.forEach((visible, i) => show(table.tHead.rows[0].cells[i], visible));
  const make = () => {
    const row = create('tr');
    row.setAttribute('role', 'row');
    for (const column of columns) {
      const cell = create(column.kind === 'name' ? 'th' : 'td', column.kind || 'number');
      if (column.kind === 'name') cell.scope = 'row';
      cell.setAttribute('role', column.kind === 'name' ? 'rowheader' : 'cell');
      cell.dataset.title = column.title;
      row.append(cell);
    }
    return row;
  };
  fillList(table.tBodies[0], rows, make, (row, item) => columns.forEach((column, i) => {
    show(row.cells[i], shown[i]);
    if (shown[i]) column.fill(row.cells[i], item);
  }));
}

const column = (title, text, more) => ({title, fill: (cell, row) => setText(cell, text(row)), ...more});
// A name, and in a second line what it is of.
const nameColumn = (title, name, note) => ({title, kind: 'name', fill: (cell, row) => {
  if (cell.children.length === 0) cell.append(create('bdi', 'who'), create('bdi', 'of'));
  setText(cell.children[0], nameText(name(row)));
  setText(cell.children[1], nameText(note(row)));
}});
// Since the start; red while there are new ones.
const failures = (title, count, recent, more) => ({title, fill: (cell, row) => {
  setText(cell, countText(count(row)));
  cell.classList.toggle('bad', recent(row) > 0);
}, ...more});

// parts: [class, value]; whole: what the bar's length stands for.
function fillBar(host, parts, whole) {
  fillList(host, parts, () => create('i'), (part, [className, value]) => {
    part.className = className;
    part.style.width = (whole > 0 ? Math.min(value / whole, 1) * 100 : 0).toFixed(2) + '%';
  });
}
function makeBar(className) {
  const bar = create('span', 'bar' + (className ? ' ' + className : ''));
  bar.setAttribute('aria-hidden', 'true');
  return bar;
}

function tierValues(volume) { return TIERS.map(tier => number(of(volume, 'bytes')[tier])); }
const tierColumn = (tier, optional) => column(tier, row => {
  const bytes = number(of(row.volume, 'bytes')[tier]);
  return bytes > 0 ? bytesText(bytes) : '\u2013';
}, optional ? {optional: row => number(of(row.volume, 'bytes')[tier]) > 0} : {});
const sharesColumn = {title: 'by tier', kind: 'shares', fill: (cell, row) => {
  if (cell.children.length === 0) cell.append(makeBar());
  const values = tierValues(row.volume);
  fillBar(cell.children[0], TIERS.map((tier, i) => [tier, values[i]]), sum(values));
}};

const VOLUME_COLUMNS = [
  nameColumn('volume', row => row.volume.name || row.volume.mountpoint, row => row.volume.name
    ? `${row.volume.mountpoint} \u2190 ${row.volume.source}` : `\u2190 ${row.volume.source}`),
  {title: 'transport', kind: 'text', fill: (cell, row) => {
    if (cell.children.length === 0) cell.append(create('span'), create('span', 'of'));
    setText(cell.children[0], row.volume.transport === 'uring' ? 'io_uring' : '/dev/fuse');
    setText(cell.children[1], row.volume.passthrough ? 'passthrough on' : 'passthrough off');
  }},
  column('now', row => rateText(row.bytesPerS)),
  column('reads', row => row.readsPerS > 0 ? countParts(row.readsPerS).join('') : '\u2013'),
  column('p50', row => timeText(row.latency.p50)),
  column('p99', row => timeText(row.latency.p99)),
  sharesColumn,
  tierColumn('memory'), tierColumn('disk'), tierColumn('peer', true), tierColumn('origin'),
  column('open', row => countText(number(row.volume.open))),
  failures('errors', row => number(row.volume.errors), row => row.errors),
];

const ORIGIN_COLUMNS = [
  nameColumn('origin of', row => row.volume.name || row.volume.mountpoint, row => row.volume.source),
  column('now', row => rateText(row.bytesPerS)),
  column('requests', row => countText(number(row.requests))),
  column('bytes', row => bytesText(number(row.bytes))),
  column('first byte p50', row => row.remote ? timeText(row.latency.p50) : '\u2013'),
  column('p99', row => row.remote ? timeText(row.latency.p99) : '\u2013'),
  column('connections', row => row.remote ? countText(number(row.origin.connections)) : '\u2013'),
  column('hedged', row => countText(number(row.origin.hedges)), {optional: row => number(row.origin.hedges) > 0}),
  column('retried', row => countText(number(row.origin.retries))),
  column('throttled', row => countText(number(row.origin.throttled)), {optional: row => number(row.origin.throttled) > 0}),
  failures('corrupt', row => number(row.origin.corrupt), row => number(row.origin.corrupt), {optional: row => number(row.origin.corrupt) > 0}),
  failures('failed', row => number(row.origin.errors), row => row.failedOfLate),
];

const msColumn = (title, key) => column(title, row => number(row.slow[key]) > 0 ? timeText(row.slow[key] * 1000) : '\u2013');
const SLOW_COLUMNS = [
  nameColumn('file', row => row.slow.file || '(the root)', row => row.volume.name || row.volume.mountpoint),
  column('operation', row => nameText(row.slow.operation), {kind: 'text'}),
  msColumn('took', 'total_ms'), msColumn('disk', 'disk_ms'),
  {...msColumn('peer', 'peer_ms'), optional: row => number(row.slow.peer_ms) > 0}, msColumn('origin', 'origin_ms'),
  column('ago', row => durationText(number(row.slow.age_s) * 1000)),
];

const PLAN_COLUMNS = [
  {title: 'what', kind: 'name', fill: (cell, row) => {
    if (cell.children.length === 0) cell.append(create('span', 'who'), create('span', 'of'));
    setText(cell.children[0], nameText(row.what));
    setText(cell.children[1], nameText(row.note));
  }},
  {title: 'share', kind: 'shares', fill: (cell, row) => {
    if (cell.children.length === 0) cell.append(makeBar('thin'));
    fillBar(cell.children[0], row.parts, row.whole);
  }},
  column('bytes', row => bytesText(row.bytes)),
];

function showHead(view) {
  const status = view.status;
  setText(byId('node'), nameText(status.node) || 'a node without a name');
  const window_ = view.window >= 55 ? 'last minute' : `last ${Math.max(1, Math.round(view.window))}\u00a0s`;
  for (const element of document.querySelectorAll('.window')) setText(element, window_);
  const facts = [`version ${nameText(status.version)}`, `up ${durationText(number(status.uptime_ms))}`,
    plural(number(status.cores), 'core', 'cores'), `pid ${number(status.pid)}`];
  setText(byId('facts'), facts.join(' \u00b7 '));
  const total = sum(view.rates);
  document.title = nameText(status.node) + (total > 0 ? ' \u2013 ' + rateText(total) : '') + ' \u2013 blobcache';
}

function showNow(view) {
  const errors = sum(view.volumes.map(each => each.errors));
  const dash = ['\u2013', ''];
  const bytes = sum(view.rates);
  const reads = sum(view.volumes.map(each => each.readsPerS));
  setFigure(byId('now-bytes'), !view.measured ? dash : bytes > 0 ? [bytesParts(bytes)[0], bytesParts(bytes)[1] + '/s'] : ['0', 'B/s']);
  setFigure(byId('now-reads'), view.measured ? countParts(reads) : dash);
  setFigure(byId('now-p50'), timeParts(view.p50 === null ? null : view.p50 / 1000));
  setFigure(byId('now-p99'), timeParts(view.p99 === null ? null : view.p99 / 1000));
  setFigure(byId('now-errors'), [countText(errors), '']);
  byId('now-errors').classList.toggle('bad', errors > 0);
  const volumes = list(view.status.volumes);
  const opens = sum(volumes.map(each => number(each.passthrough_opens)));
  show(byId('passthrough'), opens > 0);
  setText(byId('passthrough'), `Not counted here: what the kernel reads itself of files that lie whole on a disk (passthrough); ` +
    `${plural(opens, 'open', 'opens')} since the start, of ${bytesText(sum(volumes.map(each => number(each.passthrough_bytes))))} in all.`);
}

function showLegend(rates, text) {
  const legend = byId('legend');
  const tiers = TIERS.map((tier, i) => [tier, rates ? rates[i] : 0]).filter(pair => pair[0] !== 'peer' || pair[1] > 0);
  fillList(legend, [...tiers, ['when', 0]], () => create('span'), (item, [tier, rate]) => {
    item.className = tier === 'when' ? 'when' : 'tier ' + tier;
    setText(item, tier === 'when' ? text : `${tier} ${rates ? rateText(rate) : '\u2013'}`);
  });
}

// The targets of the older system's dashboards. A disk has little to answer where memory answers nearly all.
const TARGETS = [
  {name: 'L0 memory', tiers: ['memory'], from: 0.7, to: 1, word: 'above 70\u00a0%'},
  {name: 'L1 disk', tiers: ['disk'], from: 0.2, to: 1, word: 'above 20\u00a0%'},
  {name: 'L2 peers and origin', tiers: ['peer', 'origin'], from: 0, to: 0.1, word: 'below 10\u00a0%'},
];

function makeHit() {
  const hit = create('div', 'hit');
  const track = create('div', 'track');
  track.append(create('i', 'zone'), create('i', 'fill'), create('i', 'mark'));
  track.setAttribute('role', 'meter');
  track.setAttribute('aria-valuemin', '0');
  track.setAttribute('aria-valuemax', '100');
  hit.append(create('span', 'name'), create('span', 'value'), track, create('span', 'target'));
  return hit;
}

function showHits(view) {
  const replies = sum(view.replies);
  const share = tiers => sum(tiers.map(tier => view.replies[TIERS.indexOf(tier)])) / replies;
  const far = share(['peer', 'origin']);
  show(byId('hits-empty'), replies === 0);
  fillList(byId('hits'), TARGETS, makeHit, (hit, target) => {
    const value = replies > 0 ? share(target.tiers) : null;
    const [name, number_, track, word] = hit.children;
    const reached = value !== null && value >= target.from && value <= target.to;
    const spared = value !== null && !reached && target.tiers[0] === 'disk' && far <= 0.1;
    setText(name, target.name);
    setText(number_, value === null ? '\u2013' : percentText(value));
    track.setAttribute('aria-label', target.name);
    track.setAttribute('aria-valuenow', value === null ? '0' : (value * 100).toFixed(1));
    track.setAttribute('aria-valuetext', value === null ? 'no read' : (value * 100).toFixed(1) + ' percent');
    const [zone, fill, mark] = track.children;
    zone.style.left = target.from * 100 + '%';
    zone.style.width = (target.to - target.from) * 100 + '%';
    fill.className = 'fill ' + target.tiers[target.tiers.length - 1];
    fill.style.width = ((value || 0) * 100).toFixed(2) + '%';
    mark.style.left = (target.from > 0 ? target.from : target.to) * 100 + '%';
    const verdict = value === null ? '' : reached ? ' \u2013 reached' : spared ? ' \u2013 not needed, memory answers' : ' \u2013 missed';
    setText(word, `target: ${target.word}${verdict}`);
    hit.classList.toggle('missed', value !== null && !reached && !spared);
  });
}

function makeDisk() {
  const disk = create('div', 'drive');
  disk.append(create('bdi', 'who'), create('span', 'state'), makeBar(), create('p', 'note'), create('p', 'why'));
  return disk;
}

function showDisks(view) {
  const tier = of(of(view.status, 'tiers'), 'disk');
  show(byId('disks-empty'), view.disks.length === 0);
  setText(byId('disks-sum'), view.disks.length === 0 ? '' : `${bytesText(number(tier.used))} of ${bytesText(number(tier.limit))}, ` +
    plural(number(tier.objects), 'object', 'objects'));
  fillList(byId('disks'), view.disks, makeDisk, (element, {disk, writtenPerS, evictedPerS}) => {
    const [who, state, bar, note, why] = element.children;
    const used = number(disk.used);
    const limit = number(disk.limit);
    const errors = number(disk.read_errors) + number(disk.write_errors);
    setText(who, nameText(disk.path));
    setText(state, nameText(disk.state));
    state.dataset.state = disk.state === 'ok' ? 'ok' : 'bad';
    fillBar(bar, [['disk', used]], limit);
    const facts = [`${bytesText(used)} of ${bytesText(limit)}` + (limit > 0 ? ` (${(used / limit * 100).toFixed(0)}\u00a0%)` : '')];
    if (writtenPerS > 0) facts.push(`writes ${rateText(writtenPerS)}`);
    if (evictedPerS > 0) facts.push(`evicts ${rateText(evictedPerS)}`);
    facts.push(plural(errors, 'error', 'errors'), plural(number(disk.corrupt_blocks), 'corrupt block', 'corrupt blocks'));
    if (number(disk.writes_shed) > 0) facts.push(plural(number(disk.writes_shed), 'write left out', 'writes left out'));
    if (disk.stacked) facts.push('no passthrough here');
    setText(note, facts.join(' \u00b7 '));
    setText(why, nameText(disk.why));
    show(why, Boolean(disk.why));
  });
}

function showMemory(view) {
  const limit = number(view.status.memory_limit);
  const arena = number(of(of(view.status, 'tiers'), 'memory').arena);
  const used = number(of(of(view.status, 'tiers'), 'memory').used);
  setText(byId('memory-sum'), `what the limit of ${bytesText(limit)} goes to`);
  const rows = list(view.status.memory_plan).map((row, i) => i > 0 ? {...row, whole: limit, parts: [['plain', number(row.bytes)]]} : {
    ...row, whole: limit, parts: [['memory', Math.min(used, arena)], ['rest', Math.max(arena - used, 0)]],
    note: `${bytesText(used)} in use (${arena > 0 ? (used / arena * 100).toFixed(0) : 0}\u00a0%)`,
  });
  fillTable(byId('memory'), PLAN_COLUMNS, rows);
}

function makeSplit() {
  const split = create('div', 'split');
  split.append(makeBar(), create('p', 'legend'), create('p', 'note'));
  return split;
}

function showParts(host, parts) {
  fillList(host, parts, () => create('span'), (item, [className, text]) => {
    item.className = 'tier ' + className;
    setText(item, text);
  });
}

function showPrefetch(view) {
  const all = key => sum(list(view.status.volumes).map(volume => number(of(volume, 'prefetch')[key])));
  const used = all('used');
  const wasted = all('wasted');
  const fetched = all('disk') + all('origin');
  const now = sum(view.volumes.map(each => each.fetchedPerS));
  show(byId('prefetch-empty'), fetched === 0);
  fillList(byId('prefetch'), fetched > 0 ? [0] : [], makeSplit, element => {
    fillBar(element.children[0], [['good', used], ['waste', wasted]], Math.max(fetched, used + wasted));
    showParts(element.children[1], [['good', `used ${bytesText(used)}`], ['waste', `wasted ${bytesText(wasted)}` +
      (used + wasted > 0 ? ` (${percentText(wasted / (used + wasted))})` : '')]]);
    const facts = [`fetched ${bytesText(all('disk'))} from disks, ${bytesText(all('origin'))} from origins`];
    if (now > 0) facts.push(`now ${rateText(now)}`);
    setText(element.children[2], facts.join(' \u00b7 '));
  });
}

function showContent(view) {
  const store = view.status.content_store;
  show(byId('content-empty'), !store);
  fillList(byId('content'), store ? [store] : [], makeSplit, (element, each) => {
    fillBar(element.children[0], [['disk', number(each.used)], ['rest', number(each.reserved)]], number(each.limit));
    showParts(element.children[1], [['disk', `${bytesText(number(each.used))} used`], ['rest', `${bytesText(number(each.reserved))} ` +
      'being uploaded']]);
    setText(element.children[2], [`room for ${bytesText(number(each.limit))}`,
      plural(number(each.blobs), 'blob', 'blobs'), plural(number(each.uploads), 'upload', 'uploads') + ' going on',
      ...(number(each.set_aside) > 0 ? [`${countText(each.set_aside)} set aside as damaged`] : [])].join(' \u00b7 '));
  });
}

function showSlow(view) {
  const rows = list(view.status.volumes).flatMap(volume => list(volume.slow).map(slow => ({volume, slow})));
  rows.sort((a, b) => number(b.slow.total_ms) - number(a.slow.total_ms) || number(a.slow.age_s) - number(b.slow.age_s));
  show(byId('slow-empty'), rows.length === 0);
  show(byId('slow'), rows.length > 0);
  fillTable(byId('slow'), SLOW_COLUMNS, rows.slice(0, 10));
}

// What is wrong and would otherwise have to be found in the tables.
function showAttention(view) {
  const sentences = [];
  for (const {disk} of view.disks) {
    if (disk.state !== 'ok') sentences.push(`The disk ${nameText(disk.path)} is ${nameText(disk.state)}: ${nameText(disk.why)}`);
    if (number(disk.corrupt_blocks) > 0) {
      sentences.push(`${plural(disk.corrupt_blocks, 'block', 'blocks')} of the disk ${nameText(disk.path)} did not match the ` +
        'checksum since the start, and came from the origin instead.');
    }
  }
  for (const {volume, errors} of view.volumes) {
    if (errors === 0) continue;
    sentences.push(`${plural(errors, 'request', 'requests')} to ${nameText(volume.name || volume.mountpoint)} failed in the last ` +
      'minute; the log says why.');
  }
  show(byId('attention'), sentences.length > 0);
  fillList(byId('attention-list'), sentences, () => create('li'), setText);
}

function showView(view) {
  for (const part of [showHead, showAttention, showNow, showHits, showDisks, showMemory, showPrefetch, showContent, showSlow]) {
    part(view);
  }
  fillTable(byId('volumes'), VOLUME_COLUMNS, view.volumes);
  fillTable(byId('origins'), ORIGIN_COLUMNS, view.origins);
}
