'use strict';

// The report: a line for each entry, and the total below.

const money = require('./money');

/** What an entry costs. */
function amount(entry) {
  return String(entry.cents / 100);
}

/** What all of them cost. */
function total(entries) {
  return money.show(entries.reduce((sum, entry) => sum + entry.cents, 0));
}

/** The lines of the report. */
function lines(entries) {
  const rows = entries.map((entry) => [entry.name, amount(entry)]);
  rows.push(['total', total(entries)]);
  return rows.map((row) => row.join(' '));
}

module.exports = { lines };
