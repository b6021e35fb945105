'use strict';

// Money, kept in cents.

/** Cents as an amount: 1205 is `12.05`. */
function show(cents) {
  return `${Math.floor(cents / 100)}.${cents % 100}`;
}

module.exports = { show };
