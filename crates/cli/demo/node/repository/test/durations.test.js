'use strict';

const { test } = require('node:test');
const assert = require('node:assert');
const { minutes } = require('../src/durations');

test('one part', () => {
  assert.strictEqual(minutes('90m'), 90);
  assert.strictEqual(minutes('2h'), 120);
});

test('two parts', () => {
  assert.strictEqual(minutes('1h30m'), 90);
});

test('what is left over is refused', () => {
  for (const text of ['', 'soon', '1h30', '1h, later']) {
    assert.throws(() => minutes(text), `${text} was taken`);
  }
});
