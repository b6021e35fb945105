import unittest

from worklog import money


class Money(unittest.TestCase):
    def test_whole_amounts(self):
        self.assertEqual(money.show(123), "1.23")

    def test_cents_have_two_digits(self):
        self.assertEqual(money.show(1205), "12.05")
        self.assertEqual(money.show(5), "0.05")
