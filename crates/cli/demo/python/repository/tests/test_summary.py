import unittest

from worklog import summary

WEEK = """
design 1h30m
code review 45m
"""


class Summary(unittest.TestCase):
    def test_a_week_adds_up(self):
        self.assertEqual(
            summary.summary(WEEK, 6003),
            "design        90.04\n"
            "code review   45.02\n"
            "total        135.06",
        )

    def test_a_week_without_work_costs_nothing(self):
        self.assertEqual(summary.summary("", 6000), "total  0.00")
