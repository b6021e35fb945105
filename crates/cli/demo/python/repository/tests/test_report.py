import unittest

from worklog import report


class Report(unittest.TestCase):
    def test_every_entry_has_a_line_and_the_total_comes_last(self):
        entries = [report.Entry("design", 90, 15000), report.Entry("review", 45, 7500)]
        words = [line.split()[0] for line in report.lines(entries)]
        self.assertEqual(words, ["design", "review", "total"])
