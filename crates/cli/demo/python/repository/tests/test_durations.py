import unittest

from worklog import durations


class Durations(unittest.TestCase):
    def test_one_part(self):
        self.assertEqual(durations.minutes("90m"), 90)
        self.assertEqual(durations.minutes("2h"), 120)

    def test_two_parts(self):
        self.assertEqual(durations.minutes("1h30m"), 90)

    def test_what_is_left_over_is_refused(self):
        for text in ("", "soon", "1h30", "1h, later"):
            with self.subTest(text), self.assertRaises(ValueError):
                durations.minutes(text)
