'use strict';

// Text in columns.

/** Two columns below each other, the second one at the right. */
function align(rows) {
  const width = rows[0][0].length;
  return rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`);
}

module.exports = { align };
