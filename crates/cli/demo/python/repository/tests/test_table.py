import unittest

from worklog import table


class Table(unittest.TestCase):
    def test_columns_are_aligned(self):
        rows = [("a", "1.00"), ("long", "10.00")]
        self.assertEqual(table.align(rows), ["a      1.00", "long  10.00"])

    def test_no_rows_are_no_lines(self):
        self.assertEqual(table.align([]), [])
