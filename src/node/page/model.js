'use strict';
// What a node did between two of its statuses, as numbers: as `blobcache top` does it. A status tells sums since the start, so
// what lies between two of them is the difference; a sum that went back belongs to a new process, and all of it is new.

const TIERS = ['memory', 'disk', 'peer', 'origin'];

function number(value) { return typeof value === 'number' && value >= 0 ? value : 0; }
function list(value) { return Array.isArray(value) ? value : []; }
function of(object, key) { return object && typeof object === 'object' && object[key] ? object[key] : {}; }
function grown(before, after) { return after >= before ? after - before : after; }
function grew(before, after, key) { return grown(number(of(before, key)), number(of(after, key))); }
function sum(values) { return values.reduce((all, value) => all + value, 0); }

// Seconds from one sample to the next, by the node's clock where it is the same process: answers may be late.
function secondsBetween(before, after) {
  const byNode = number(after.status.uptime_ms) - number(before.status.uptime_ms);
  const ms = after.status.pid === before.status.pid && byNode > 0 ? byNode : after.at - before.at;
  return Math.max(ms, 1) / 1000;
}

function isRestart(before, after) {
  return after.status.pid !== before.status.pid || number(after.status.uptime_ms) < number(before.status.uptime_ms);
}

// Histograms are pairs of an upper bound and a count; what is longer than all bounds has null for one.
function bucketsBetween(before, after) {
  const old = new Map(list(before).map(([bound, count]) => [bound, count]));
  return list(after).map(([bound, count]) => [bound === null ? Infinity : bound, grown(number(old.get(bound)), count)]);
}

function percentile(buckets, share) {
  const sorted = buckets.filter(pair => pair[1] > 0).sort((a, b) => a[0] - b[0]);
  const wanted = share * sum(sorted.map(pair => pair[1]));
  let seen = 0;
  for (const [bound, count] of sorted) {
    seen += count;
    if (seen >= wanted) return bound;
  }
  return null;
}

// In microseconds; null where nothing happened.
function latencyBetween(before, after, unitsAMicrosecond) {
  const buckets = bucketsBetween(before, after);
  const us = share => {
    const bound = percentile(buckets, share);
    return bound === null ? null : bound / unitsAMicrosecond;
  };
  return {p50: us(0.5), p99: us(0.99), buckets};
}

// The one that was at the same place before; a volume's mount point and a disk's path are its names.
function same(before, after, key) { return list(before).find(each => each[key] === after[key]); }

function tierSums(volumes, key) { return TIERS.map(tier => sum(list(volumes).map(each => number(of(each, key)[tier])))); }

function tiersBetween(before, after, key) {
  const each = list(after.volumes).map(volume => {
    const old = of(same(before.volumes, volume, 'mountpoint'), key);
    return TIERS.map(tier => grew(old, of(volume, key), tier));
  });
  return TIERS.map((tier, i) => sum(each.map(tiers => tiers[i])));
}

// Everything that is a difference: `last` is the sample before `now`, `old` the one of a minute ago.
function viewBetween(old, last, now) {
  const seconds = secondsBetween(last, now);
  const status = now.status;
  const view = {status, seconds, measured: last !== now, window: old === now ? 0 : secondsBetween(old, now)};
  view.rates = tiersBetween(last.status, status, 'bytes').map(bytes => bytes / seconds);
  view.replies = tiersBetween(old.status, status, 'replies');
  view.volumes = list(status.volumes).map(volume => {
    const justBefore = same(last.status.volumes, volume, 'mountpoint');
    const minuteAgo = same(old.status.volumes, volume, 'mountpoint');
    return {
      volume,
      bytesPerS: sum(TIERS.map(tier => grew(of(justBefore, 'bytes'), of(volume, 'bytes'), tier))) / seconds,
      readsPerS: grew(justBefore, volume, 'reads') / seconds,
      fetchedPerS: grew(of(justBefore, 'prefetch'), of(volume, 'prefetch'), 'disk') / seconds +
        grew(of(justBefore, 'prefetch'), of(volume, 'prefetch'), 'origin') / seconds,
      errors: grew(minuteAgo, volume, 'errors'),
      latency: latencyBetween(of(minuteAgo, 'read_latency_ns'), volume.read_latency_ns, 1000),
    };
  });
  const all = view.volumes.flatMap(each => each.latency.buckets);
  view.p50 = percentile(all, 0.5);
  view.p99 = percentile(all, 0.99);
  view.disks = list(of(of(status, 'tiers'), 'disk').disks).map(disk => {
    const before = same(of(of(last.status, 'tiers'), 'disk').disks, disk, 'path');
    return {disk, writtenPerS: grew(before, disk, 'written_bytes') / seconds,
      evictedPerS: grew(before, disk, 'evicted_bytes') / seconds};
  });
  view.origins = list(status.origins).map((origin, i) => originBetween(old.status, last.status, status, origin, i, seconds));
  return view;
}

// Origins stand in the order of their volumes. Reads of a directory are no requests to a server: they are the volume's.
function originBetween(old, last, status, origin, i, seconds) {
  const volume = list(status.volumes)[i];
  const before = list(last.origins).length === list(status.origins).length ? last.origins[i] : {};
  const minuteAgo = list(old.origins).length === list(status.origins).length ? old.origins[i] : {};
  const volumeBefore = same(last.volumes, volume || {}, 'mountpoint');
  const remote = number(origin.requests) > 0;
  return {
    origin,
    volume: volume || {},
    remote,
    requests: remote ? origin.requests : number(of(volume, 'origin_reads')),
    bytes: remote ? origin.bytes : number(of(volume, 'origin_bytes')),
    bytesPerS: (remote ? grew(before, origin, 'bytes') : grew(volumeBefore, volume, 'origin_bytes')) / seconds,
    failedOfLate: grew(minuteAgo, origin, 'errors'),
    latency: latencyBetween(of(minuteAgo, 'first_byte_us').buckets, of(origin, 'first_byte_us').buckets, 1),
  };
}

// Numbers as people read them: [digits, unit].
function scaled(value, units, base) {
  let i = 0;
  let v = value;
  for (; v >= 999.5 && i + 1 < units.length; ++i) v /= base;
  return [v.toFixed(i === 0 || v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2), units[i]];
}
function bytesParts(bytes) { return scaled(bytes, ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'], 1024); }
function bytesText(bytes) { return bytesParts(bytes).join('\u00a0'); }
function rateText(bytesPerS) { return bytesPerS < 0.5 ? '\u2013' : bytesText(bytesPerS) + '/s'; }
function countParts(perS) {
  if (perS > 0 && perS < 9.95) return [perS.toFixed(1), '/s'];
  const [digits, unit] = scaled(perS, ['', 'k', 'M', 'G'], 1000);
  return [digits, unit + '/s'];
}
function timeParts(us) {
  if (us === null) return ['\u2013', ''];
  if (us === Infinity) return ['> 70', 's'];
  if (us < 999.5) return [us.toFixed(us < 9.95 ? 1 : 0), '\u00b5s'];
  if (us < 999500) return [(us / 1e3).toFixed(us < 99500 ? 1 : 0), 'ms'];
  return [(us / 1e6).toFixed(1), 's'];
}
function timeText(us) { return timeParts(us).filter(part => part).join('\u00a0'); }
function percentText(share) { return (share * 100).toFixed(1) + '\u00a0%'; }
function plural(count, one, many) { return countText(count) + '\u00a0' + (count === 1 ? one : many); }
function countText(count) { return Math.round(count).toLocaleString('en').replace(/,/g, '\u202f'); }
function durationText(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 120) return s + '\u00a0s';
  if (s < 7200) return Math.floor(s / 60) + '\u00a0min';
  if (s < 172800) return Math.floor(s / 3600) + '\u00a0h ' + Math.floor(s % 3600 / 60) + '\u00a0min';
  return Math.floor(s / 86400) + '\u00a0d ' + Math.floor(s % 86400 / 3600) + '\u00a0h';
}

// A name is what somebody else wrote: what would not be seen, or would turn the text around it, is shown by its number.
function nameText(name) {
  return String(name === undefined || name === null ? '' : name)
    .replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, c => {
      const code = c.charCodeAt(0);
      return code < 0x100 ? '\\x' + code.toString(16).padStart(2, '0') : '\\u' + code.toString(16).padStart(4, '0');
    });
}
