'use strict';

const { test } = require('node:test');
const assert = require('node:assert');
const { align } = require('../src/table');

test('columns are aligned', () => {
  const rows = [['a', '1.00'], ['long', '10.00']];
  assert.deepStrictEqual(align(rows), ['a      1.00', 'long  10.00']);
});

test('no rows are no lines', () => {
  assert.deepStrictEqual(align([]), []);
});
