'use strict';

const { test } = require('node:test');
const assert = require('node:assert');
const { lines } = require('../src/report');

test('every entry has a line and the total comes last', () => {
  const found = lines([{ name: 'design', cents: 15000 }, { name: 'review', cents: 7500 }]);
  assert.deepStrictEqual(found.map((line) => line.split(' ')[0]), ['design', 'review', 'total']);
});
