"""The command: reads the week from standard input, takes the rate as its argument."""

import sys

from worklog import summary

if __name__ == "__main__":
    print(summary.summary(sys.stdin.read(), int(sys.argv[1])))
