// Formats numbers for people.

const numbers = new Intl.NumberFormat("en-US");

/** Return a count with separators. */
export function count(value) {
  return numbers.format(value);
}

/** Return a count with its noun, in the plural where that is right. */
export function plural(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Return a size in bytes, KiB or MiB. */
export function bytes(value) {
  if (value < 1024) return `${value} B`;
  if (value < 1024 ** 2) return `${(value / 1024).toFixed(1)} KiB`;
  return `${(value / 1024 ** 2).toFixed(1)} MiB`;
}

/** Return a time in ms or s. */
export function milliseconds(value) {
  return value < 1000 ? `${value} ms` : `${(value / 1000).toFixed(2)} s`;
}

/** Return when to try again: "in 5 s", "in 3 min", or after a date if it is more than an hour. */
export function retryTime(seconds, now = Date.now()) {
  if (seconds < 120) return `in ${Math.ceil(seconds)} s`;
  if (seconds < 3600) return `in ${Math.ceil(seconds / 60)} min`;
  return `after ${new Date(now + seconds * 1000).toLocaleString("en-US", { dateStyle: "long", timeStyle: "short" })}`;
}
