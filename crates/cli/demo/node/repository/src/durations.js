'use strict';

// Durations as people write them: `90m`, `2h`, `1h30m`.

const units = { h: 60, m: 1 };

/** The minutes in a duration. */
function minutes(text) {
  const match = /^(\d+)([hm])/.exec(text);
  if (!match) throw new Error(`not a duration: ${text}`);
  const [, number, unit] = match;
  return Number(number) * units[unit];
}

module.exports = { minutes };
