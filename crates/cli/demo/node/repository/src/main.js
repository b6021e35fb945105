'use strict';

// The command: reads the week from standard input, takes the rate as its argument.

const fs = require('node:fs');
const { summary } = require('./summary');

console.log(summary(fs.readFileSync(0, 'utf8'), Number(process.argv[2])));
