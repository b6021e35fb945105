'use strict';

const { test } = require('node:test');
const assert = require('node:assert');
const { show } = require('../src/money');

test('whole amounts', () => {
  assert.strictEqual(show(123), '1.23');
});

test('cents have two digits', () => {
  assert.strictEqual(show(1205), '12.05');
  assert.strictEqual(show(5), '0.05');
});
