'use strict';

const { test } = require('node:test');
const assert = require('node:assert');
const { summary } = require('../src/summary');

test('a week adds up', () => {
  assert.strictEqual(
    summary('\ndesign 1h30m\ncode review 45m\n', 6003),
    'design        90.04\ncode review   45.02\ntotal        135.06',
  );
});

test('a week without work costs nothing', () => {
  assert.strictEqual(summary('', 6000), 'total  0.00');
});
