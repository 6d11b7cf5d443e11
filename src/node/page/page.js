// Asks the node again and again, and says so when it does not answer.
//
//   waiting --answer--> live --no answer--> stale --answer--> live
//      '--401--> token asked for --submit--> waiting

const ASK_MS = 1000;
const ASK_HIDDEN_MS = 10000;
const PATIENCE_MS = 4000;
const WINDOW_MS = 60000;
const TOKEN_KEY = 'blobcache-token';

let token = sessionStorage.getItem(TOKEN_KEY) || '';
let samples = [];  // of the last minute, the oldest first
let failedSince = null;
let timer = 0;
let asking = null;
let asked = 0;

const chart = new Chart(byId('chart'), (point, moment) => {
  if (moment === null) {
    const last = chart && chart.points.length > 0 ? chart.points[chart.points.length - 1] : null;
    return showLegend(last && last.rates, '');
  }
  const seconds = Math.round(moment / 1000);
  const when = (seconds >= 60 ? `${Math.floor(seconds / 60)} min ` : '') + `${seconds % 60} s ago`;
  showLegend(point && point.rates, point ? when : `${when}: not known`);
});

function take(status) {
  const now = {at: performance.now(), status};
  const last = samples[samples.length - 1];
  if (last && isRestart(last, now)) samples = [];
  samples = samples.filter(sample => sample.at >= now.at - WINDOW_MS - ASK_MS);
  samples.push(now);
  const before = last || now;
  const view = viewBetween(samples[0], before, now);
  showView(view);
  if (view.measured) chart.add({at: now.at, ms: now.at - before.at, rates: view.rates});
  chart.draw();
}

function announce(text) { setText(byId('announcer'), text); }

function setState(state, text) {
  byId('live').dataset.state = state;
  setText(byId('live-text'), text);
}

function onAnswer(status) {
  if (failedSince !== null) announce('The node answers again.');
  failedSince = null;
  show(byId('stale'), false);
  show(byId('token-form'), false);
  show(byId('main'), true);
  show(byId('forget'), token !== '');
  document.body.classList.remove('is-stale');
  take(status);
  setState('live', 'live');
}

// why: a sentence's end.
function onSilence(why) {
  if (failedSince === null) announce('The node does not answer.');
  failedSince = failedSince === null ? performance.now() : failedSince;
  document.body.classList.add('is-stale');
  setState('stale', 'no answer');
  setText(byId('stale-what'), `The node does not answer${why}.`);
  showAge();
  show(byId('stale'), true);
  document.title = 'no answer \u2013 blobcache';
}

function showAge() {
  const last = samples[samples.length - 1];
  const age = last && durationText(performance.now() - last.at);
  setText(byId('stale-age'), last ? `What you see is ${age} old.` : 'There is nothing to show yet.');
}

function onRefusal() {
  const tried = token !== '';
  forget();
  failedSince = null;
  samples = [];
  show(byId('stale'), false);
  show(byId('main'), false);
  document.body.classList.remove('is-stale');
  setState('waiting', 'token needed');
  if (!byId('token-form').hidden && !tried) return;
  show(byId('token-form'), true);
  setText(byId('token-wrong'), tried ? 'The node refuses this token.' : '');
  byId('token').focus();
}

function headers() { return token === '' ? {} : {Authorization: `Bearer ${token}`}; }

async function ask() {
  clearTimeout(timer);
  if (asking) asking.abort();
  const mine = new AbortController();
  const round = ++asked;
  asking = mine;
  const patience = setTimeout(() => mine.abort(), PATIENCE_MS);
  let next = true;
  try {
    const answer = await fetch('/v1/status', {headers: headers(), cache: 'no-store', signal: mine.signal, redirect: 'error'});
    if (round !== asked) return;
    if (answer.status === 401) {
      next = false;
      onRefusal();
    } else if (answer.ok) {
      const status = await answer.json();
      if (round === asked) onAnswer(status);
    } else {
      onSilence(` with its status but with ${answer.status}`);
    }
  } catch (problem) {
    if (round === asked) onSilence(problem instanceof SyntaxError ? ' with a status that can be read' : '');
  } finally {
    clearTimeout(patience);
    if (round === asked) {
      asking = null;
      if (next) timer = setTimeout(ask, document.hidden ? ASK_HIDDEN_MS : ASK_MS);
    }
  }
}

function forget() {
  token = '';
  sessionStorage.removeItem(TOKEN_KEY);
  show(byId('forget'), false);
}

byId('token-form').addEventListener('submit', event => {
  event.preventDefault();
  const entered = byId('token').value.trim();
  byId('token').value = '';
  // What is no token could not be sent.
  if (!/^[\x21-\x7e]+$/.test(entered)) return setText(byId('token-wrong'), 'A token has no blanks and no letters beyond ASCII.');
  setText(byId('token-wrong'), '');
  token = entered;
  sessionStorage.setItem(TOKEN_KEY, token);
  setState('waiting', 'asking\u2026');
  ask();
});

byId('forget').addEventListener('click', () => {
  forget();
  ask();
});

// A link cannot carry a token: what it leads to is fetched and shown as the text that it is.
async function openWithToken(event) {
  if (token === '') return;
  event.preventDefault();
  const link = event.currentTarget;
  try {
    const answer = await fetch(link.getAttribute('href'), {headers: headers(), cache: 'no-store', redirect: 'error'});
    const blob = new Blob([await answer.text()], {type: 'text/plain;charset=utf-8'});
    const url = URL.createObjectURL(blob);
    window.open(url, '_blank', 'noopener');
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  } catch {
    onSilence('');
  }
}

setText(byId('node'), location.host);
for (const link of document.querySelectorAll('nav a')) link.addEventListener('click', openWithToken);

document.addEventListener('visibilitychange', () => { if (!document.hidden && byId('token-form').hidden) ask(); });
setInterval(() => { if (failedSince !== null) showAge(); }, ASK_MS);
ask();
